//! Options of the etcd store, from the `--etcd-…` flags.

use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{Endpoint, Uri};

use super::error::EtcdError;

/// Size limit of a PEM file in bytes. The CA bundle of a Linux distribution has a quarter of a MiB.
pub const PEM_LIMIT: u64 = 4 << 20;

pub(super) const CA_FILE: &str = "--etcd-cafile";
pub(super) const CERTIFICATE_FILE: &str = "--etcd-certfile";
pub(super) const KEY_FILE: &str = "--etcd-keyfile";
const USERNAME: &str = "--etcd-username";
const PASSWORD: &str = "--etcd-password";

/// Endpoints, credentials and key prefix of the store in etcd.
#[derive(Clone)]
pub struct EtcdOptions {
    /// Endpoints: `http://host:port`, `https://host:port`, or `host:port`, which means http. One is
    /// used at a time, and the next one when it fails.
    pub endpoints: Vec<String>,
    /// Prefix of all keys, such as `/coreos.com/network`. A trailing slash is ignored.
    pub prefix: String,
    /// PEM file with the authorities that may sign the server's certificate. None means the
    /// system's certificate store.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key of that certificate.
    pub key_file: Option<PathBuf>,
    /// Name of the etcd user.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<String>,
    /// Time limits of connections, calls and watches.
    pub timing: EtcdTiming,
}

/// Time limits of connections, calls and watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdTiming {
    /// Limit for resolving an endpoint's host name.
    pub resolve: Duration,
    /// Limit for each address of an endpoint to accept a connection and to answer on it.
    pub connect: Duration,
    /// Limit for the answer to a call.
    pub call: Duration,
    /// Silence after which a watch is asked for a progress notification.
    pub quiet: Duration,
    /// Limit for that notification. A watch that does not get it is stale.
    pub progress: Duration,
}

impl Default for EtcdTiming {
    fn default() -> Self {
        Self {
            // A resolver asks the next name server after 5 s (resolv.conf(5)).
            resolve: Duration::from_secs(10),
            connect: Duration::from_secs(3),
            call: Duration::from_secs(5),
            quiet: Duration::from_secs(10),
            progress: Duration::from_secs(5),
        }
    }
}

impl EtcdTiming {
    /// Returns the limits shortened such that each of this number of endpoints can be tried within
    /// `limit`, whatever is wrong with the others.
    #[must_use]
    pub fn within(self, limit: Duration, endpoints: usize) -> Self {
        let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
        // A third for the name, half of one for the start of the last address, one for its answer,
        // and the rest for the diagnosis.
        let third = limit / endpoints / 3;
        Self { resolve: self.resolve.min(third), connect: self.connect.min(third), ..self }
    }
}

impl EtcdOptions {
    /// Returns options without TLS and credentials, and with the default time limits.
    pub fn new(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        prefix: impl Into<String>,
    ) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: prefix.into(),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            username: None,
            password: None,
            timing: EtcdTiming::default(),
        }
    }

    /// Returns the prefix without a trailing slash.
    pub(super) fn prefix(&self) -> &str {
        self.prefix.trim_end_matches('/')
    }

    /// Returns user and password, if both are given. Flags from empty environment variables count
    /// as absent.
    pub(super) fn credentials(&self) -> Option<(&str, &str)> {
        Some((given(&self.username)?, given(&self.password)?))
    }

    /// Checks that the flags are consistent, and returns the endpoints with their scheme. Reads no
    /// file.
    pub(super) fn check(&self) -> Result<Vec<String>, EtcdError> {
        let endpoints: Vec<String> = self.endpoints.iter().map(|e| with_scheme(e)).collect();
        for endpoint in &endpoints {
            check_endpoint(endpoint)?;
        }
        let (tls, plain): (Vec<_>, Vec<_>) = endpoints.iter().partition(|e| is_tls(e));
        if let (Some(tls), Some(plain)) = (tls.first(), plain.first()) {
            return Err(EtcdError::MixedSchemes { tls: (*tls).clone(), plain: (*plain).clone() });
        }
        let files = [
            (CA_FILE, &self.ca_file),
            (CERTIFICATE_FILE, &self.certificate_file),
            (KEY_FILE, &self.key_file),
        ];
        if let Some(endpoint) = plain.first()
            && let Some((flag, _)) = files.iter().find(|(_, file)| file.is_some())
        {
            return Err(EtcdError::FileWithoutTls { flag, endpoint: (*endpoint).clone() });
        }
        together(
            (CERTIFICATE_FILE, self.certificate_file.is_some()),
            (KEY_FILE, self.key_file.is_some()),
        )?;
        together(
            (USERNAME, given(&self.username).is_some()),
            (PASSWORD, given(&self.password).is_some()),
        )?;
        if endpoints.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        Ok(endpoints)
    }

    /// Returns the hosts of the endpoints, as names or addresses.
    pub(super) fn hosts(&self) -> impl Iterator<Item = String> {
        self.endpoints.iter().filter_map(|endpoint| host(&with_scheme(endpoint).parse().ok()?))
    }
}

impl std::fmt::Debug for EtcdOptions {
    /// Formats everything but the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("ca_file", &self.ca_file)
            .field("certificate_file", &self.certificate_file)
            .field("key_file", &self.key_file)
            .field("username", &self.username)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

fn given(flag: &Option<String>) -> Option<&str> {
    flag.as_deref().filter(|value| !value.is_empty())
}

fn with_scheme(endpoint: &str) -> String {
    let endpoint = endpoint.trim().trim_end_matches('/');
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") }
}

/// Returns the host of an endpoint, an IPv6 address without its brackets.
pub(super) fn host(uri: &Uri) -> Option<String> {
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

pub(super) fn is_tls(endpoint: &str) -> bool {
    endpoint.starts_with("https://")
}

pub(super) fn invalid(endpoint: &str, reason: &impl ToString) -> EtcdError {
    EtcdError::InvalidEndpoint { endpoint: endpoint.to_owned(), reason: reason.to_string() }
}

fn check_endpoint(endpoint: &str) -> Result<(), EtcdError> {
    if !endpoint.starts_with("http://") && !is_tls(endpoint) {
        return Err(invalid(endpoint, &"the scheme is neither http nor https"));
    }
    check_port(endpoint)?;
    let parsed = Endpoint::from_shared(endpoint.to_owned()).map_err(|e| invalid(endpoint, &e))?;
    let uri = parsed.uri();
    if !matches!(uri.path(), "" | "/") {
        return Err(invalid(endpoint, &"there is a path"));
    }
    Ok(())
}

fn check_port(endpoint: &str) -> Result<(), EtcdError> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    // The colons of an IPv6 address are in brackets.
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    let Some((_, port)) = after_host.rsplit_once(':') else {
        return Err(invalid(endpoint, &"there is no port"));
    };
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ if port.is_empty() => Err(invalid(endpoint, &"there is no port")),
        _ if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(invalid(endpoint, &format!("the port {port} is out of range, 1 to 65535")))
        }
        _ => Err(invalid(endpoint, &format!("the port `{port}` is no number"))),
    }
}

fn together(first: (&'static str, bool), second: (&'static str, bool)) -> Result<(), EtcdError> {
    let (given, missing) = match (first.1, second.1) {
        (true, false) => (first.0, second.0),
        (false, true) => (second.0, first.0),
        _ => return Ok(()),
    };
    Err(EtcdError::Incomplete { given, missing })
}

#[cfg(test)]
mod tests;
