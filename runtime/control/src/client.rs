//! The client side of the protocol, used by the tool.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::{CallError, Leases, Status};

/// Default time limit for answers that the daemon has in memory.
const LIMIT: Duration = Duration::from_secs(10);

/// Factor by which the time limit is longer for leases. The daemon reads them from the store page
/// by page, and each page has its own limit there.
const LEASES: u32 = 6;

/// Client of a daemon's control socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    limit: Duration,
}

impl Client {
    /// Creates a client for the daemon behind a socket, with a time limit of 10 seconds.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), limit: LIMIT }
    }

    /// Sets another time limit.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Queries the daemon's state.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no answer.
    pub async fn status(&self) -> Result<Status, CallError> {
        self.get("/status").await
    }

    /// Queries the records in the store.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no answer.
    pub async fn leases(&self) -> Result<Leases, CallError> {
        let limit = self.limit * LEASES;
        Self { path: self.path.clone(), limit }.get("/leases").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let timeout = CallError::Timeout { path: self.path.clone(), limit: self.limit };
        let call = tokio::time::timeout(self.limit, self.call(path));
        let (status, body) = call.await.map_err(|_| timeout)??;
        match status {
            StatusCode::OK => {
                serde_json::from_slice(&body).map_err(|error| self.protocol(error.to_string()))
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                Err(CallError::Unavailable(String::from_utf8_lossy(&body).into_owned()))
            }
            other => Err(self.protocol(format!("{path} is answered with {other}"))),
        }
    }

    async fn call(&self, path: &str) -> Result<(StatusCode, Bytes), CallError> {
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|error| not_connected(&self.path, error))?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // The connection ends with the sender. Its error, if any, is also the request's.
            tokio::spawn(connection);
            let request = Request::get(path).header(header::HOST, "heddled");
            let request = request.body(Empty::<Bytes>::new()).expect("the request is constant");
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok((head.status, body.collect().await?.to_bytes()))
        };
        exchange.await.map_err(|error: hyper::Error| self.protocol(error.to_string()))
    }

    fn protocol(&self, reason: String) -> CallError {
        CallError::Protocol { path: self.path.clone(), reason }
    }
}

fn not_connected(path: &Path, source: io::Error) -> CallError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::NotFound => CallError::Missing(path),
        ErrorKind::ConnectionRefused => CallError::NotRunning(path),
        ErrorKind::PermissionDenied => CallError::Denied { allowed: allowed(&path), path },
        _ => CallError::Io { path, source },
    }
}

/// Describes the users with access to a socket.
fn allowed(path: &Path) -> String {
    match path.metadata() {
        Ok(found) if found.permissions().mode() & 0o060 != 0 => {
            let group = Group::from_gid(Gid::from_raw(found.gid())).ok().flatten();
            let group = group.map_or_else(|| found.gid().to_string(), |group| group.name);
            format!("root and the group {group}")
        }
        _ => "root alone (heddled's --control-group lets a group in)".to_owned(),
    }
}
