//! The server side of the protocol, used by the daemon.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_http::{Answer, Bytes, Hosts, Server, Site, StatusCode};
use nix::unistd::Group;
use tokio::net::UnixListener;

use crate::{Documents, Handler, ListenError, Unavailable};

/// Time limit for an answer. Longer than clients wait for the longest one, so that the client's own
/// limit applies first.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// Content type of the answers.
const JSON: &str = "application/json";

/// A socket that is listened on. Dropping it removes its file, unless another daemon has replaced
/// it meanwhile.
#[derive(Debug)]
#[must_use = "the socket is removed with it"]
pub struct Socket {
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Drop for Socket {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            // A file that stays is one that the next daemon replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a Unix socket, and answers in the background until the daemon ends. The socket exists
/// as long as the returned value.
///
/// Only root has access (0600), or also the group (0660); the socket has these permissions from the
/// start. Creates its directory if needed. Replaces the socket of a dead daemon. Serves
/// `connections` clients at a time; beyond that, the one that has been idle longest is
/// disconnected.
///
/// Needs a Tokio runtime.
///
/// # Errors
///
/// [`ListenError`] if it cannot listen there.
pub async fn serve<H: Handler>(
    path: &Path,
    group: Option<&str>,
    documents: Documents<H>,
    connections: usize,
) -> Result<Socket, ListenError> {
    let (listener, socket) = listen(path, group)?;
    let server =
        Server::new("control socket", Hosts::Any, connections).answering_within(ANSWER_LIMIT);
    server.serve_unix(listener, Control(documents));
    Ok(socket)
}

/// Length limit of a socket's path in bytes, without the final zero (`sun_path` in unix(7)).
const PATH_LIMIT: usize = 107;

fn listen(path: &Path, group: Option<&str>) -> Result<(UnixListener, Socket), ListenError> {
    // The kernel would not notice: the socket is created under a short name and then moved.
    if path.as_os_str().len() > PATH_LIMIT {
        return Err(ListenError::TooLong { path: path.to_owned(), limit: PATH_LIMIT });
    }
    let failed = |step| move |source| ListenError::Io { path: path.to_owned(), step, source };
    let group = group.map(group_id).transpose()?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(failed("cannot create its directory"))?;
    check_path_is_free(path)?;
    // Created in a private directory, and renamed into place once the permissions are right.
    let private = tempfile::Builder::new().prefix(".").rand_bytes(3).tempdir_in(dir);
    let private = private.map_err(failed("cannot write to its directory"))?;
    let unfinished = private.path().join("s");
    let listener = UnixListener::bind(&unfinished).map_err(failed("cannot create a socket"))?;
    let finish = || -> io::Result<Socket> {
        if group.is_some() {
            chown(&unfinished, None, group)?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&unfinished, Permissions::from_mode(mode))?;
        let file = fs::symlink_metadata(&unfinished)?;
        fs::rename(&unfinished, path)?;
        Ok(Socket { path: std::path::absolute(path)?, file: (file.dev(), file.ino()) })
    };
    let socket = finish().map_err(failed("cannot move the socket into place"))?;
    Ok((listener, socket))
}

/// Checks that the socket's path is free, or has the socket of a dead daemon, which the new one
/// then replaces.
fn check_path_is_free(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    match UnixStream::connect(path) {
        Err(error)
            if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) =>
        {
            Ok(())
        }
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(source) => {
            let step = "the socket that is there cannot be tried";
            Err(ListenError::Io { path: path.to_owned(), step, source })
        }
    }
}

fn group_id(name: &str) -> Result<u32, ListenError> {
    let found = Group::from_name(name).ok().flatten();
    found.map(|group| group.gid.as_raw()).ok_or_else(|| ListenError::NoGroup(name.to_owned()))
}

/// Site behind the control socket: `/status` and `/leases`.
struct Control<H>(Documents<H>);

impl<H: Handler> Site for Control<H> {
    async fn answer(&self, path: &str) -> Answer {
        match path {
            // Always a fresh status, because the caller may just have changed something.
            "/status" => match self.0.status(Duration::ZERO).await {
                Ok(snapshot) => answer(snapshot.json()),
                Err(error) => answer(Err(error)),
            },
            "/leases" => answer(self.0.leases().await),
            _ => Answer::not_found(),
        }
    }
}

fn answer(json: Result<Bytes, Unavailable>) -> Answer {
    match json {
        Ok(json) => Answer::document(JSON, json),
        Err(Unavailable(reason)) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
