//! The package under test, and what it is installed on.

use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_lab::{Image, run};

/// The package under test: what `make deb` leaves, or `HEDDLE_DEB`.
pub fn package() -> PathBuf {
    if let Some(path) = std::env::var_os("HEDDLE_DEB") {
        return path.into();
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian");
    let files = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    // Of several versions, the one that was made last.
    files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "deb"))
        .max_by_key(|file| file.metadata().and_then(|metadata| metadata.modified()).ok())
        .unwrap_or_else(|| {
            panic!("no .deb in {}: run `make deb`, or set HEDDLE_DEB", directory.display())
        })
        .path()
}

/// What the version of a [newer package](newer_package) ends with.
pub const NEWER: &str = "+newer";

/// The same package with a higher version, below a scratch directory.
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

/// What machines boot from, kept between runs.
pub fn image() -> Image {
    Image::debian(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/machines")).unwrap()
}
