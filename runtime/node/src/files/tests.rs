use crate::testing::flags;

use super::*;

#[test]
fn file_is_replaced_only_if_it_differs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/flannel/subnet.env");
    assert!(write(&path, b"one", 0o644).unwrap());
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    assert!(!write(&path, b"one", 0o644).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    write(&path, b"two", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn plugin_file_path_with_obstacle_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let error = |name: &str| inspect_place(&root.join(name)).map_err(|e| e.to_string());
    fs::create_dir(root.join("real")).unwrap();
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("real/passwd")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    fs::write(root.join("real/file"), "").unwrap();
    for good in ["real/file", "real/new", "new/new", "real/passwd"] {
        assert_eq!(error(good), Ok(()));
    }
    let link =
        format!("cannot use {}/link: it is a symbolic link: expected a directory", root.display());
    assert_eq!(error("link/cron.d/x"), Err(link));
    for bad in ["socket", "real"] {
        assert!(error(bad).unwrap_err().contains("it exists and is not a regular file"), "{bad}");
    }
    assert!(
        error("real/file/x").unwrap_err().ends_with("real/file: it exists and is not a directory")
    );
    // A symbolic link as the last component is replaced, not followed.
    write(&root.join("real/passwd"), b"x", 0o644).unwrap();
    assert!(!fs::symlink_metadata(root.join("real/passwd")).unwrap().is_symlink());
}

#[test]
fn fifo_at_file_path_is_named_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // On a thread of its own, because a call that blocks would block the test.
    let (sender, answer) = std::sync::mpsc::channel();
    let target = path.clone();
    std::thread::spawn(move || sender.send(write(&target, b"x", 0o644)));
    let written = answer.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    let expected = format!("cannot write {}: it exists and is not a regular file", path.display());
    assert!(written.unwrap_err().to_string().starts_with(&expected));
    assert!(!fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn removed_file_takes_its_new_directories_along() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir(root.join("there")).unwrap();
    for (path, left) in [("there/a/b/c", "there"), ("a/b", ""), ("there/x", "there")] {
        let path = root.join(path);
        let first_made = first_missing(&path);
        write(&path, b"x", 0o644).unwrap();
        unmake(&path, first_made.as_deref());
        assert!(root.join(left).is_dir());
        let rest: Vec<_> = fs::read_dir(root).unwrap().flatten().collect();
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!(fs::read_dir(root.join("there")).unwrap().count(), 0);
    }
}

#[test]
fn write_error_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("there");
    fs::create_dir(&path).unwrap();
    let error = write(&path, b"x", 0o644).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
}

fn file(path: &Path, contents: &str) -> File {
    File { path: path.to_owned(), contents: contents.into(), mode: 0o644 }
}

/// Returns the files of a host whose subnet.env is at a path.
fn host_files(subnet_env: &Path) -> HostFiles {
    let state = subnet_env.with_file_name("state");
    let arguments = [
        format!("--subnet-file={}", subnet_env.display()),
        format!("--state-dir={}", state.display()),
    ];
    HostFiles::new(&flags(&arguments.each_ref().map(String::as_str)))
}

/// A directory without symbolic links above it.
struct Place {
    _directory: tempfile::TempDir,
    root: PathBuf,
    files: HostFiles,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let files = host_files(&root.join("subnet.env"));
        Self { _directory: directory, root, files }
    }

    /// Writes files that no setting names. Returns the error.
    fn replace(&self, names: &[&str]) -> Result<Vec<PathBuf>, String> {
        let files = names.iter().map(|name| file(&self.root.join(name), "new")).collect();
        replace(files, &[]).map_err(|error| error.to_string())
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).unwrap_or_default()
    }
}

#[test]
fn all_files_of_an_emitter_are_written() {
    let place = Place::new();
    let written = place.replace(&["a", "new/b"]).unwrap();
    assert_eq!(written, [place.root.join("a"), place.root.join("new/b")]);
    assert_eq!((place.text("a").as_str(), place.text("new/b").as_str()), ("new", "new"));
}

#[test]
fn nothing_is_written_if_one_path_is_unusable() {
    let place = Place::new();
    fs::create_dir(place.root.join("directory")).unwrap();
    let error = place.replace(&["a", "directory"]).unwrap_err();
    assert!(error.contains("directory: it exists and is not a regular file"), "{error}");
    assert!(!place.root.join("a").exists());
}

#[test]
fn new_files_go_again_if_a_later_one_cannot_be_written() {
    let place = Place::new();
    fs::create_dir(place.root.join("there")).unwrap();
    // Named by a setting, the path is inspected only when it is written.
    let bad = place.root.join("there");
    let setting = Setting { name: "path".into(), value: bad.display().to_string() };
    let files = vec![file(&place.root.join("new/a"), "new"), file(&bad, "new")];
    assert!(replace(files, &[setting]).is_err());
    assert!(!place.root.join("new").exists());
}

#[test]
fn replaced_file_stays_if_a_later_one_cannot_be_written() {
    let place = Place::new();
    fs::write(place.root.join("a"), "old").unwrap();
    fs::create_dir(place.root.join("there")).unwrap();
    let bad = place.root.join("there");
    let setting = Setting { name: "path".into(), value: bad.display().to_string() };
    let files = vec![file(&place.root.join("a"), "new"), file(&bad, "new")];
    assert!(replace(files, &[setting]).is_err());
    assert_eq!(place.text("a"), "new");
}

#[test]
fn plugin_follows_no_symbolic_link_unless_the_operator_names_it() {
    let place = Place::new();
    fs::create_dir(place.root.join("real")).unwrap();
    std::os::unix::fs::symlink(place.root.join("real"), place.root.join("link")).unwrap();
    let error = place.replace(&["link/a"]).unwrap_err();
    assert!(error.ends_with("link: it is a symbolic link: expected a directory"), "{error}");
    assert_eq!(place.text("real/a"), "");
    let path = place.root.join("link/a");
    let setting = Setting { name: "path".into(), value: path.display().to_string() };
    replace(vec![file(&path, "new")], &[setting]).unwrap();
    assert_eq!(place.text("real/a"), "new");
}

#[test]
fn mode_alone_is_corrected() {
    let place = Place::new();
    let path = place.root.join("a");
    assert!(write(&path, b"x", 0o600).unwrap());
    assert!(write(&path, b"x", 0o644).unwrap());
    assert!(!write(&path, b"x", 0o644).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn longer_file_with_the_same_beginning_is_replaced() {
    let place = Place::new();
    let path = place.root.join("a");
    write(&path, b"one two", 0o644).unwrap();
    assert!(write(&path, b"one", 0o644).unwrap());
    assert_eq!(place.text("a"), "one");
}

#[test]
fn file_above_the_path_is_an_error_that_names_the_directory() {
    let place = Place::new();
    fs::write(place.root.join("file"), "").unwrap();
    let error = write(&place.root.join("file/a"), b"x", 0o644).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot create directory {}/file: ", place.root.display())));
}

#[test]
fn failed_write_leaves_no_temporary_file() {
    let place = Place::new();
    fs::create_dir(place.root.join("a")).unwrap();
    assert!(write(&place.root.join("a"), b"x", 0o644).is_err());
    assert_eq!(fs::read_dir(&place.root).unwrap().count(), 1);
}

#[test]
fn subnet_env_of_the_earlier_run_is_read() {
    let place = Place::new();
    assert_eq!(place.files.subnet_env(), "");
    fs::write(place.root.join("subnet.env"), "FLANNEL_MTU=1450\n").unwrap();
    assert_eq!(place.files.subnet_env(), "FLANNEL_MTU=1450\n");
}

#[test]
fn unreadable_subnet_env_counts_as_none() {
    let place = Place::new();
    fs::create_dir(place.root.join("subnet.env")).unwrap();
    assert_eq!(place.files.subnet_env(), "");
}

#[test]
fn host_has_a_name() {
    let name = node_name().unwrap();
    assert_eq!(name.trim(), name);
    assert!(!name.is_empty());
}

/// Returns the print of a file.
fn print(path: &Path) -> Print {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    Print::of(mode, &fs::read(path).unwrap())
}

#[test]
fn own_file_is_removed_and_any_other_stays() {
    let place = Place::new();
    let path = place.root.join("a");
    write(&path, b"x", 0o644).unwrap();
    let own = print(&path);
    let removal = |kept: &[PathBuf]| {
        remove(&path, std::slice::from_ref(&own), kept, &place.files.directory).unwrap()
    };
    fs::write(&path, "y").unwrap();
    assert_eq!(removal(&[]), Removal::Foreign);
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(removal(&[]), Removal::Foreign);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert_eq!(removal(&[]), Removal::Foreign);
    fs::remove_file(&path).unwrap();
    assert_eq!(removal(&[]), Removal::Missing);
    write(&path, b"x", 0o644).unwrap();
    assert_eq!(removal(&[place.root.join("b")]), Removal::Removed);
    assert!(!path.exists());
}

#[test]
fn file_in_use_under_another_name_is_not_removed() {
    let place = Place::new();
    fs::create_dir(place.root.join("run")).unwrap();
    std::os::unix::fs::symlink(place.root.join("run"), place.root.join("var-run")).unwrap();
    let (old, new) = (place.root.join("var-run/a"), place.root.join("run/a"));
    write(&new, b"x", 0o644).unwrap();
    let removal = remove(&old, &[print(&new)], std::slice::from_ref(&new), &place.files.directory);
    assert_eq!(removal.unwrap(), Removal::InUse);
    assert!(new.exists());
}

#[tokio::test]
async fn file_of_another_instance_is_not_removed() {
    let place = Place::new();
    let path = place.root.join("a");
    write(&path, b"x", 0o644).unwrap();
    let written = Written { path: path.clone(), print: print(&path), made: false };
    let own = place.files.directory.clone();
    let other = HostFiles { directory: own.with_file_name("other"), ..host_files(&path) };
    place.files.record(std::slice::from_ref(&written)).await.unwrap();
    other.record(std::slice::from_ref(&written)).await.unwrap();
    let prints = [written.print];
    assert_eq!(place.files.remove(&path, &prints, &[]).await.unwrap(), Removal::InUse);
    other.record(&[]).await.unwrap();
    assert_eq!(place.files.remove(&path, &prints, &[]).await.unwrap(), Removal::Removed);
}

#[test]
fn file_below_directory_of_others_is_not_removed() {
    let place = Place::new();
    let directory = place.root.join("open");
    let path = directory.join("a");
    write(&path, b"x", 0o644).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let removal = remove(&path, &[print(&path)], &[], &place.files.directory);
    assert_eq!(removal.unwrap(), Removal::Foreign);
}

#[tokio::test]
async fn record_is_kept_for_the_next_run() {
    let place = Place::new();
    assert_eq!(place.files.recorded().await, []);
    let written = Written { path: "/run/a".into(), print: Print::of(0o644, b"x"), made: true };
    place.files.record(std::slice::from_ref(&written)).await.unwrap();
    assert_eq!(place.files.recorded().await, [written]);
}

#[test]
fn link_to_a_right_file_is_replaced() {
    let place = Place::new();
    let (path, target) = (place.root.join("a"), place.root.join("target"));
    write(&target, b"x", 0o644).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(write(&path, b"x", 0o644).unwrap());
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}
