use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use heddle_requires::requires;
use tempfile::TempDir;

use super::*;

/// Creates a directory `plugins` with a file in it, both with usual modes.
fn place() -> (TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let plugins = directory.path().canonicalize().unwrap().join("plugins");
    fs::create_dir(&plugins).unwrap();
    let file = plugins.join("x.wasm");
    fs::write(&file, "").unwrap();
    set_mode(&plugins, 0o755);
    set_mode(&file, 0o644);
    (directory, plugins, file)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn refused(path: &Path) -> String {
    vouch(path).unwrap_err().to_string()
}

#[test]
fn own_file_in_own_directory_is_trusted() {
    let (_directory, plugins, file) = place();
    vouch(&plugins).unwrap();
    vouch(&file).unwrap();
    RegularFile::open(&file).unwrap().vouch().unwrap();
}

#[test]
fn file_that_others_can_write_is_refused() {
    let (_directory, plugins, file) = place();
    for mode in [0o664, 0o646, 0o666] {
        set_mode(&file, mode);
        let error = RegularFile::open(&file).unwrap().vouch().unwrap_err();
        assert!(matches!(error.untrusted, Untrusted::Mode(found) if found == mode), "{error}");
        let path = file.display();
        assert!(refused(&file).starts_with(&format!("{path} has mode {mode:o}, ")));
        assert!(refused(&file).ends_with(&format!("chmod go-w {path}")));
    }
    vouch(&plugins).unwrap();
}

#[test]
fn directory_that_others_can_write_is_refused() {
    let (_directory, plugins, file) = place();
    for mode in [0o775, 0o757, 0o777, 0o1777] {
        set_mode(&plugins, mode);
        let named = format!("{} has mode {mode:o}, ", plugins.display());
        assert!(refused(&plugins).starts_with(&named), "{}", refused(&plugins));
    }
    // The file itself is trusted, and in a sticky directory it stays in place.
    vouch(&file).unwrap();
    set_mode(&plugins, 0o777);
    assert!(refused(&file).starts_with(&format!("{} has mode 777", plugins.display())));
}

#[test]
fn directory_above_that_others_can_write_is_refused() {
    let (directory, plugins, file) = place();
    set_mode(directory.path(), 0o777);
    let above = plugins.parent().unwrap().display().to_string();
    for path in [&plugins, &file] {
        assert!(refused(path).starts_with(&format!("{above} has mode 777")));
    }
    set_mode(directory.path(), 0o1777);
    vouch(&plugins).unwrap();
}

#[test]
fn link_is_as_trusted_as_its_target() {
    let (_directory, plugins, file) = place();
    let (_elsewhere, other, target) = place();
    let link = plugins.join("link.wasm");
    symlink(&target, &link).unwrap();
    vouch(&link).unwrap();
    set_mode(&other, 0o777);
    assert!(refused(&link).starts_with(&other.display().to_string()));
    vouch(&file).unwrap();
}

#[test]
fn missing_path_is_named() {
    let error = vouch(Path::new("/nonexistent/plugins")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/plugins cannot be checked: "));
    assert!(
        matches!(error.untrusted, Untrusted::Io(error) if error.kind() == io::ErrorKind::NotFound)
    );
}

#[test]
fn rule_of_owners_and_modes_holds_for_every_user() {
    let judged = |owner, expected, mode, is_above| match judge(owner, expected, mode, is_above) {
        Ok(()) => "trusted",
        Err(Untrusted::Owner { owner: named, expected: user }) => {
            assert_eq!((named, user), (owner, expected));
            "owner"
        }
        Err(Untrusted::Mode(named)) => {
            assert_eq!(named, mode);
            "mode"
        }
        Err(Untrusted::Io(error)) => panic!("nothing is read: {error}"),
    };
    for (owner, expected, mode, itself, above) in [
        (0, 0, 0o644, "trusted", "trusted"),
        (0, 1000, 0o644, "trusted", "trusted"),
        (1000, 1000, 0o755, "trusted", "trusted"),
        (65534, 0, 0o644, "owner", "owner"),
        (65534, 1000, 0o600, "owner", "owner"),
        (1000, 0, 0o755, "owner", "owner"),
        (0, 0, 0o664, "mode", "mode"),
        (0, 1000, 0o646, "mode", "mode"),
        (1000, 1000, 0o777, "mode", "mode"),
        (0, 1000, 0o1777, "mode", "trusted"),
        (1000, 1000, 0o1775, "mode", "trusted"),
        // The owner of a sticky directory can rename the files in it.
        (65534, 1000, 0o1777, "owner", "owner"),
    ] {
        let found = [false, true].map(|is_above| judged(owner, expected, mode, is_above));
        assert_eq!(found, [itself, above], "{owner} {expected} {mode:o}");
    }
}

#[test]
fn file_of_another_owner_is_refused() {
    // To give files away; the rule itself is tested above.
    requires!(Root);
    let (_directory, plugins, file) = place();
    chown(&file, Some(65534), None).unwrap();
    let error = RegularFile::open(&file).unwrap().vouch().unwrap_err().to_string();
    let path = file.display();
    assert!(error.starts_with(&format!("{path} belongs to user 65534, who can")), "{error}");
    assert!(error.ends_with(&format!("expected root; to trust it as it is: chown 0 {path}")));
    chown(&file, Some(0), None).unwrap();
    chown(&plugins, Some(65534), None).unwrap();
    assert!(refused(&file).starts_with(&format!("{} belongs to user 65534", plugins.display())));
}

#[test]
fn other_owner_is_named() {
    let (owner, expected) = (65534, 1000);
    let said = Untrusted::Owner { owner, expected }.to_string();
    assert!(said.starts_with("belongs to user 65534, "), "{said}");
    assert!(said.ends_with(": expected root, or user 1000 who runs this"), "{said}");
}
