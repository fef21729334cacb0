//! Daemon and tool over a real socket.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_control::{
    CallError, Client, Documents, Handler, LeaseRecord, Leases, ListenError, Peer, Socket, Status,
    Unavailable,
};
use nix::unistd::{Gid, Group};

/// A daemon with a given number of peers, and a store that may fail.
struct Daemon {
    peers: usize,
    store: Result<(), &'static str>,
}

const HEALTHY: Daemon = Daemon { peers: 1, store: Ok(()) };

impl Handler for Daemon {
    async fn status(&self) -> Result<Status, Unavailable> {
        let peer = |index| Peer { key: format!("10.{index}"), ..Peer::default() };
        Ok(Status { peers: (0..self.peers).map(peer).collect(), ..Status::default() })
    }

    async fn leases(&self) -> Result<Leases, Unavailable> {
        self.store.map_err(|reason| Unavailable(reason.to_owned()))?;
        let records = vec![LeaseRecord { key: "10.244.1.0-24".into(), ..LeaseRecord::default() }];
        Ok(Leases { records, ..Leases::default() })
    }
}

/// Serves the documents of a daemon.
async fn serve(path: &Path, group: Option<&str>, daemon: Daemon) -> Result<Socket, ListenError> {
    heddle_control::serve(path, group, Documents::new(daemon), 8).await
}

/// Creates a directory, and returns it with a socket path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/heddled.sock");
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn client_receives_documents_of_daemon() {
    let (_dir, path) = place();
    let _socket = serve(&path, None, Daemon { peers: 20_000, store: Ok(()) }).await.unwrap();
    let client = Client::new(&path);
    let status = client.status().await.unwrap();
    assert_eq!((status.peers.len(), status.peers[7].key.as_str()), (20_000, "10.7"));
    assert_eq!(client.leases().await.unwrap().records[0].key, "10.244.1.0-24");
}

#[tokio::test]
async fn client_receives_reason_for_unavailability() {
    let (_dir, path) = place();
    let _socket =
        serve(&path, None, Daemon { peers: 0, store: Err("etcd is gone") }).await.unwrap();
    let error = Client::new(&path).leases().await.unwrap_err();
    assert!(
        matches!(&error, CallError::Unavailable(reason) if reason == "etcd is gone"),
        "{error}"
    );
}

#[tokio::test]
async fn socket_is_for_root_only_unless_group_is_given() {
    let (_dir, path) = place();
    let _socket = serve(&path, None, HEALTHY).await.unwrap();
    assert!(path.symlink_metadata().unwrap().file_type().is_socket());
    assert_eq!(mode(&path), 0o600);
    let around: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(around.len(), 1, "{around:?}");

    let (_dir, path) = place();
    // A group that this user may assign to a file.
    let group = Group::from_gid(Gid::current()).unwrap().unwrap();
    let _socket = serve(&path, Some(&group.name), HEALTHY).await.unwrap();
    assert_eq!(mode(&path), 0o660);
    assert_eq!(path.metadata().unwrap().gid(), group.gid.as_raw());
    let error = serve(&path, Some("no such group"), HEALTHY).await.unwrap_err();
    assert!(matches!(error, ListenError::NoGroup(_)), "{error}");
}

#[tokio::test]
async fn socket_of_dead_daemon_is_replaced_live_one_is_kept() {
    let (_dir, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(error, CallError::NotRunning(_)), "{error}");
    let _socket = serve(&path, None, HEALTHY).await.unwrap();
    let error = serve(&path, None, HEALTHY).await.unwrap_err();
    assert!(matches!(&error, ListenError::InUse(at) if *at == path), "{error}");
    assert_eq!(Client::new(&path).status().await.unwrap().peers.len(), 1);
}

#[tokio::test]
async fn socket_is_removed_at_the_end_unless_replaced() {
    let (_dir, path) = place();
    drop(serve(&path, None, HEALTHY).await.unwrap());
    assert!(!path.exists());
    let first = serve(&path, None, HEALTHY).await.unwrap();
    fs::remove_file(&path).unwrap();
    let second = serve(&path, None, HEALTHY).await.unwrap();
    drop(first);
    assert_eq!(Client::new(&path).status().await.unwrap().peers.len(), 1);
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn path_that_no_client_could_name_is_an_error() {
    let (dir, _) = place();
    let path = |length: usize| {
        let missing = length - dir.path().as_os_str().len() - 1;
        dir.path().join("x".repeat(missing))
    };
    let error = serve(&path(108), None, HEALTHY).await.unwrap_err();
    assert!(matches!(&error, ListenError::TooLong { limit: 107, .. }), "{error}");
    let _socket = serve(&path(107), None, HEALTHY).await.unwrap();
    assert_eq!(Client::new(path(107)).status().await.unwrap().peers.len(), 1);
}

#[tokio::test]
async fn file_that_is_no_socket_is_kept() {
    let (_dir, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "precious").unwrap();
    let error = serve(&path, None, HEALTHY).await.unwrap_err();
    assert!(matches!(error, ListenError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn call_errors_distinguish_missing_silent_and_foreign() {
    let (_dir, path) = place();
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(error, CallError::Missing(_)), "{error}");
    assert!(error.to_string().contains("is heddled running?"), "{error}");

    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let silent = tokio::net::UnixListener::bind(&path).unwrap();
    let client = Client::new(&path).with_limit(Duration::from_millis(50));
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");

    tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            stream.writable().await.unwrap();
            // The first client may have disconnected already.
            let _ = stream.try_write(b"220 mail.example.org ESMTP\r\n");
            heard.push(stream);
        }
    });
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(error, CallError::Protocol { .. }), "{error}");
}
