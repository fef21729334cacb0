//! The Debian package under test, and the machines to install it on.

use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_lab::{Image, run};

/// Returns the package under test: the output of `make deb`, or `HEDDLE_DEB`.
pub fn package() -> PathBuf {
    if let Some(path) = std::env::var_os("HEDDLE_DEB") {
        return path.into();
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian");
    let files = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    // Of several versions, the newest file.
    files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "deb"))
        .max_by_key(|file| file.metadata().and_then(|metadata| metadata.modified()).ok())
        .unwrap_or_else(|| {
            panic!("no .deb in {}: run `make deb`, or set HEDDLE_DEB", directory.display())
        })
        .path()
}

/// Suffix of a [newer package](newer_package)'s version.
pub const NEWER: &str = "+newer";

/// Builds the same package with a higher version in a scratch directory.
pub fn newer_package(directory: &Path) -> PathBuf {
    let (contents, newer) = (directory.join("contents"), directory.join("newer.deb"));
    run(Command::new("dpkg-deb").arg("--raw-extract").args([&package(), &contents])).unwrap();
    let control = contents.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).unwrap();
    let version = text.lines().find(|line| line.starts_with("Version: ")).unwrap();
    std::fs::write(&control, text.replace(version, &format!("{version}{NEWER}"))).unwrap();
    run(Command::new("dpkg-deb").args(["-Znone", "--build"]).args([&contents, &newer])).unwrap();
    newer
}

/// Returns the image that machines boot from, which is kept between runs.
pub fn image() -> Image {
    Image::debian(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/machines")).unwrap()
}
