//! The daemon's half.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_http::{Answer, Bytes, Hosts, Server, Site, StatusCode};
use nix::unistd::Group;
use tokio::net::UnixListener;

use crate::{Documents, Leases, ListenError, Status};

/// Time limit for an answer: longer than clients wait for the longest one, so that they learn why there is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// The kind of what is answered.
const JSON: &str = "application/json";

/// Answers for the daemon.
pub trait Handler: Send + Sync + 'static {
    /// What the daemon is doing.
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send;

    /// What is in the store.
    fn leases(&self) -> impl Future<Output = Result<Leases, Unavailable>> + Send;
}

impl<H: Handler> Handler for Arc<H> {
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send {
        H::status(self)
    }

    fn leases(&self) -> impl Future<Output = Result<Leases, Unavailable>> + Send {
        H::leases(self)
    }
}

/// The daemon cannot answer at present. Has the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Listens on a unix socket, and answers in the background until the daemon ends.
///
/// The socket is root's alone (0600), or the group's as well (0660); it has these permissions from the first moment. Its
/// directory is made if need be. One that a dead daemon left is replaced. It has `connections` clients at a time; the one
/// that was idle longest makes way for another.
///
/// Needs a Tokio runtime.
///
/// # Errors
///
/// [`ListenError`], when there is no listening there.
pub async fn serve<H: Handler>(
    path: &Path,
    group: Option<&str>,
    documents: Documents<H>,
    connections: usize,
) -> Result<(), ListenError> {
    let listener = listen(path, group)?;
    let server =
        Server::new("control socket", Hosts::Any, connections).answering_within(ANSWER_LIMIT);
    server.serve_unix(listener, Control(documents));
    Ok(())
}

fn listen(path: &Path, group: Option<&str>) -> Result<UnixListener, ListenError> {
    let failed = |step| move |source| ListenError::Io { path: path.to_owned(), step, source };
    let group = group.map(group_id).transpose()?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(failed("its directory cannot be made"))?;
    make_way(path)?;
    // Made where nobody else can get at it, and moved into place once its permissions are right.
    let private = tempfile::Builder::new().prefix(".").rand_bytes(3).tempdir_in(dir);
    let private = private.map_err(failed("its directory cannot be written"))?;
    let unfinished = private.path().join("s");
    let listener = UnixListener::bind(&unfinished).map_err(failed("no socket can be made"))?;
    let finish = || -> io::Result<()> {
        if group.is_some() {
            chown(&unfinished, None, group)?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&unfinished, Permissions::from_mode(mode))?;
        fs::rename(&unfinished, path)
    };
    finish().map_err(failed("the socket cannot be put in place"))?;
    Ok(listener)
}

/// Makes sure that what stands in the socket's place, if anything, is a dead daemon's.
fn make_way(path: &Path) -> Result<(), ListenError> {
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

/// The site behind the control socket: `/status` and `/leases`.
struct Control<H>(Documents<H>);

impl<H: Handler> Site for Control<H> {
    async fn answer(&self, path: &str) -> Answer {
        match path {
            // As it is now, and not as it was when somebody asked last: who asks has just changed something.
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
