use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;

/// Deadline far beyond the duration of these calls on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a function that must not block. The thread of a call that does block ends with the test
/// program.
fn promptly<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).expect("the call returns")
}

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn file_is_read_up_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, [b'x'; 1024]).unwrap();
    assert_eq!(read(&path, 1024).unwrap().len(), 1024);
    assert_eq!(read_text(&path, 4096).unwrap().len(), 1024);
    let error = read(&path, 1023).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read {}: it has more than 1023 bytes, which is the limit", path.display())
    );
    assert_eq!(io::Error::from(error).kind(), ErrorKind::FileTooLarge);
    assert!(read(&directory.path().join("none"), 1).unwrap_err().is_not_found());
}

#[test]
fn file_without_a_size_is_bounded_while_read() {
    // A regular file that reports a size of 0, and is not empty.
    let path = Path::new("/proc/self/status");
    assert!(read(path, 1 << 20).unwrap().starts_with(b"Name:"));
    assert!(matches!(read(path, 10).unwrap_err().reason, Reason::TooLarge(10)));
}

#[test]
fn fifo_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("fifo"), directory.path().join("link"));
    fifo(&path);
    symlink(&path, &link).unwrap();
    for path in [path, link] {
        let named = format!("cannot read {}: it is a FIFO: expected", path.display());
        let error = promptly(move || read(&path, 1)).unwrap_err().to_string();
        assert!(error.starts_with(&named), "{error}");
    }
}

#[test]
fn sockets_devices_and_directories_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for (path, expected) in [
        (socket.as_path(), "a socket"),
        (directory.path(), "a directory"),
        (Path::new("/dev/zero"), "a device"),
        (Path::new("/dev/tty"), "a device"),
    ] {
        let path = path.to_owned();
        let error = promptly(move || read(&path, 1)).unwrap_err();
        assert!(matches!(error.reason, Reason::NotRegular(found) if found == expected), "{error}");
    }
}

#[test]
fn link_is_followed_unless_told_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&path, "text").unwrap();
    symlink(&path, &link).unwrap();
    assert_eq!(read_text(&link, 4).unwrap(), "text");
    let error = RegularFile::open_nofollow(&link).unwrap_err();
    assert!(matches!(error.reason, Reason::NotRegular("a symbolic link")), "{error}");
    assert!(RegularFile::open_nofollow(&path).is_ok());
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, [0xff]).unwrap();
    assert!(matches!(read_text(&path, 1).unwrap_err().reason, Reason::NotText));
}

#[test]
fn limits_are_shown_in_whole_units() {
    let shown = [1 << 20, 256 << 10, 1 << 10, 1000].map(size);
    assert_eq!(shown, ["1 MiB", "256 KiB", "1 KiB", "1000 bytes"]);
}
