//! Reads of etcd's v2 API, where flannel up to 0.17 keeps its data: JSON over HTTP/1, below
//! `/v2/keys`. etcd keeps the data of its v2 and v3 APIs apart, and each hides the other's.
//!
//! Only GET requests are made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::timeout;

use super::dial::{self, Target, Tls};
use super::error::{EtcdError, EtcdFailure};
use super::options::EtcdOptions;

/// Size limit of an answer in bytes: a hundred thousand leases.
const ANSWER_LIMIT: usize = 64 << 20;

/// Size limit of an answer with the network config alone, in bytes.
const CONFIG_LIMIT: usize = 1 << 20;

/// Time limit for looking whether there is a network config.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// Length limit of foreign text in an error, in characters.
const REASON_LIMIT: usize = 200;

/// The protocol that a client offers in the handshake (ALPN).
const HTTP1: &[u8] = b"http/1.1";

/// etcd's code for a key that does not exist (etcd's api/v2error/error.go, `EcodeKeyNotFound`).
const KEY_NOT_FOUND: u32 = 100;

/// etcd's codes from here on are of its consensus, such as an election in progress. Another member
/// may answer (`EcodeRaftInternal`).
const CONSENSUS: u32 = 300;

/// A key of the v2 API, and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct V2Node {
    /// The whole key.
    pub key: String,
    /// True for a directory, which has no value.
    pub dir: bool,
    /// The value.
    pub value: String,
    /// Seconds until it expires. None for a key that never does.
    pub ttl: Option<i64>,
    /// etcd's count when the key was created: smaller is earlier.
    pub created_index: u64,
    /// The keys of a directory.
    pub nodes: Vec<V2Node>,
}

#[derive(Deserialize)]
struct Found {
    node: V2Node,
}

/// etcd's error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    error_code: u32,
    message: String,
}

/// A client that reads by the v2 API.
#[derive(Debug)]
pub struct V2Reader {
    options: EtcdOptions,
    /// Endpoint URLs with their scheme.
    endpoints: Vec<String>,
}

impl V2Reader {
    /// Returns a reader that connects for each request.
    ///
    /// # Errors
    ///
    /// [`EtcdError`], when an endpoint is invalid or flags contradict each other.
    pub fn new(options: EtcdOptions) -> Result<Self, EtcdError> {
        Ok(Self { endpoints: options.check()?, options })
    }

    /// Returns everything below the prefix, as of one moment. None if the prefix does not exist.
    ///
    /// # Errors
    ///
    /// [`EtcdError`], when no endpoint answers by the v2 API.
    pub async fn tree(&self) -> Result<Option<V2Node>, EtcdError> {
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            // With a quorum, as flannel reads: a member that lags behind would lack new leases.
            let query = "?recursive=true&sorted=true&quorum=true";
            match self.ask(endpoint, "", query, ANSWER_LIMIT).await? {
                Ok(found) => return Ok(found),
                Err(found) => failures.extend(found),
            }
        }
        Err(EtcdError::Unreachable(failures))
    }

    /// Returns true if there is a network config. Asks endpoints until one answers, whatever it
    /// answers, within [`LOOK_LIMIT`].
    pub(super) async fn has_config(&self) -> bool {
        let timing = self.options.timing.within(LOOK_LIMIT, self.endpoints.len());
        let reader = Self {
            options: EtcdOptions { timing, ..self.options.clone() },
            endpoints: self.endpoints.clone(),
        };
        let looking = async {
            for endpoint in &reader.endpoints {
                match reader.ask(endpoint, "/config", "", CONFIG_LIMIT).await {
                    Ok(Ok(found)) => return found.is_some_and(|node| !node.dir),
                    Ok(Err(failures)) if failures.iter().any(|(_, f)| f.is_answer()) => break,
                    Ok(Err(_)) => {}
                    Err(_) => break,
                }
            }
            false
        };
        timeout(LOOK_LIMIT, looking).await.unwrap_or(false)
    }

    /// Reads a key below the prefix from one endpoint. On failure, returns the endpoint and the
    /// reason, or one for each address.
    async fn ask(
        &self,
        endpoint: &str,
        path: &str,
        query: &str,
        limit: usize,
    ) -> Result<Result<Option<V2Node>, Vec<(String, EtcdFailure)>>, EtcdError> {
        let mut target = Target::new(&self.options, endpoint)?;
        if let Some((config, _)) = &mut target.tls {
            Arc::make_mut(config).alpn_protocols = vec![HTTP1.to_vec()];
        }
        let timing = self.options.timing;
        let addresses = match dial::resolve(&target.host, target.port, timing.resolve).await {
            Ok(addresses) => addresses,
            Err(failure) => return Ok(Err(vec![(endpoint.to_owned(), failure)])),
        };
        let key = format!("{}{path}", self.options.prefix());
        let uri = format!("/v2/keys/{}{query}", escaped(key.trim_start_matches('/')));
        let mut attempts = Vec::with_capacity(addresses.len());
        for address in &addresses {
            attempts.push(self.attempt(&target, *address, &uri, limit).boxed());
        }
        let stagger = dial::stagger(addresses.len(), timing.connect);
        let answer = dial::first_success(attempts, stagger).await;
        Ok(answer.map_err(|failures| {
            failures.into_iter().map(|failure| (endpoint.to_owned(), failure)).collect()
        }))
    }

    async fn attempt(
        &self,
        target: &Target,
        address: SocketAddr,
        uri: &str,
        limit: usize,
    ) -> Result<Option<V2Node>, EtcdFailure> {
        let timing = self.options.timing;
        let connecting = timeout(timing.connect, self.connect(address, target.tls.clone()));
        let stream = connecting.await.map_err(|_| EtcdFailure::Deadline(timing.connect))??;
        let asking = timeout(timing.call, self.exchange(stream, target, uri, limit));
        asking.await.map_err(|_| EtcdFailure::Deadline(timing.call))?
    }

    async fn connect(
        &self,
        address: SocketAddr,
        tls: Option<Tls>,
    ) -> Result<TokioIo<Box<dyn dial::Stream>>, EtcdFailure> {
        let failure = |error| EtcdFailure::of_transport(&error, self.options.ca_file.as_ref());
        let tcp = dial::connect(address).await.map_err(failure)?;
        let (stream, _) = dial::secure(tcp, tls).await.map_err(failure)?;
        Ok(TokioIo::new(stream))
    }

    async fn exchange(
        &self,
        stream: TokioIo<Box<dyn dial::Stream>>,
        target: &Target,
        uri: &str,
        limit: usize,
    ) -> Result<Option<V2Node>, EtcdFailure> {
        let failure =
            |error: hyper::Error| EtcdFailure::of_transport(&error, self.options.ca_file.as_ref());
        let (mut sender, connection) = http1::handshake(stream).await.map_err(failure)?;
        // The connection ends with the sender. Its error, if any, is also the request's.
        tokio::spawn(connection);
        let authority = target.url.split_once("://").map_or(&*target.url, |(_, rest)| rest);
        let mut request = Request::get(uri).header(header::HOST, authority);
        if let Some((user, password)) = self.options.credentials() {
            let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
            request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| EtcdFailure::V2(error.to_string()))?;
        let (head, body) = sender.send_request(request).await.map_err(failure)?.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            EtcdFailure::V2(format!("the answer cannot be read, up to {limit} bytes: {error}"))
        })?;
        read(head.status, &body.to_bytes())
    }
}

impl EtcdFailure {
    /// Returns true if the server answered by HTTP.
    fn is_answer(&self) -> bool {
        matches!(self, Self::NoV2 | Self::V2(_) | Self::Authentication)
    }
}

/// Reads an answer. None if the key does not exist.
fn read(status: StatusCode, body: &[u8]) -> Result<Option<V2Node>, EtcdFailure> {
    if status == StatusCode::OK {
        let found: Result<Found, _> = serde_json::from_slice(body);
        return match found {
            Ok(found) => Ok(Some(found.node)),
            Err(error) => Err(EtcdFailure::V2(format!("the answer is no node: {error}"))),
        };
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(EtcdFailure::Authentication);
    }
    match serde_json::from_slice(body) {
        Ok(Refused { error_code: KEY_NOT_FOUND, .. }) => Ok(None),
        Ok(Refused { error_code, message }) if error_code < CONSENSUS => {
            Err(EtcdFailure::V2(format!("{} ({error_code})", shown(&message))))
        }
        Ok(Refused { message, .. }) => Err(EtcdFailure::V2(shown(&message))),
        Err(_) if status == StatusCode::NOT_FOUND => Err(EtcdFailure::NoV2),
        Err(_) => {
            let body = shown(&String::from_utf8_lossy(body));
            Err(EtcdFailure::V2(format!("HTTP status {}: {body}", status.as_u16())))
        }
    }
}

fn shown(text: &str) -> String {
    heddle_core::text::one_line(text, REASON_LIMIT)
}

/// Returns a path with every other byte than those of RFC 3986's unreserved characters and `/`
/// escaped.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_key_is_told_from_missing_api() {
        let body =
            br#"{"errorCode":100,"message":"Key not found","cause":"/coreos.com","index":3}"#;
        assert_eq!(read(StatusCode::NOT_FOUND, body), Ok(None));
        let off = read(StatusCode::NOT_FOUND, b"404 page not found\n");
        assert_eq!(off, Err(EtcdFailure::NoV2));
        let body = br#"{"message":"Insufficient credentials"}"#;
        assert_eq!(read(StatusCode::UNAUTHORIZED, body), Err(EtcdFailure::Authentication));
        let other = read(StatusCode::BAD_GATEWAY, b"<html>\x1b[2J").unwrap_err().to_string();
        assert_eq!(other, "v2 API: HTTP status 502: <html> [2J");
        let other = read(StatusCode::OK, b"<html>").unwrap_err().to_string();
        assert!(other.starts_with("v2 API: the answer is no node: "), "{other}");
    }

    #[test]
    fn node_of_etcd_is_read() {
        let body = br#"{"action":"get","node":{"key":"/n","dir":true,"nodes":[
            {"key":"/n/a","value":"x","expiration":"2026-12-01T03:00:40Z","ttl":86400,"modifiedIndex":9,"createdIndex":5},
            {"key":"/n/b","value":"","modifiedIndex":6,"createdIndex":6}],"modifiedIndex":4,"createdIndex":4}}"#;
        let node = read(StatusCode::OK, body).unwrap().unwrap();
        assert!(node.dir && node.key == "/n" && node.nodes.len() == 2);
        let lease = &node.nodes[0];
        assert_eq!((lease.value.as_str(), lease.ttl, lease.created_index), ("x", Some(86_400), 5));
        assert_eq!(node.nodes[1].ttl, None);
    }

    #[test]
    fn path_is_escaped_for_a_url() {
        assert_eq!(escaped("/coreos.com/a b?#%ü"), "/coreos.com/a%20b%3F%23%25%C3%BC");
    }
}
