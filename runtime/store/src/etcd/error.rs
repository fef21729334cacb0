//! Errors of the etcd store. Their messages name the flag, file or endpoint that an operator should
//! check.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use tonic::Code;

/// A failure of the etcd store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// The list of endpoints is empty.
    #[error(
        "--etcd-endpoints is empty: expected one or more of `http://host:port` and `https://host:port`"
    )]
    NoEndpoint,
    /// An endpoint that is not a valid URL.
    #[error(
        "--etcd-endpoints: `{endpoint}` is not an endpoint ({reason}): expected `http://host:port`, `https://host:port` or `host:port`"
    )]
    InvalidEndpoint {
        /// The endpoint, as given.
        endpoint: String,
        /// The problem with it.
        reason: String,
    },
    /// A mix of endpoints with and without TLS.
    #[error(
        "--etcd-endpoints mixes `{tls}` with `{plain}`: expected either https or http for all of them"
    )]
    MixedSchemes {
        /// An endpoint with TLS.
        tls: String,
        /// An endpoint without TLS.
        plain: String,
    },
    /// A TLS flag that would have no effect.
    #[error(
        "{flag} is given, but the endpoint `{endpoint}` is not https: expected `https://host:port`"
    )]
    FileWithoutTls {
        /// The flag.
        flag: &'static str,
        /// An endpoint without TLS.
        endpoint: String,
    },
    /// Two flags that belong together, of which only one is given.
    #[error("{given} is given without {missing}: expected both or none")]
    Incomplete {
        /// The flag that is given.
        given: &'static str,
        /// The flag that is missing.
        missing: &'static str,
    },
    /// A certificate or key file that cannot be used.
    #[error("{flag} {}: {reason}", path.display())]
    File {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The problem with it.
        reason: String,
    },
    /// An endpoint with TLS, without `--etcd-cafile` and without a certificate store of the system.
    #[error(
        "no --etcd-cafile is given, and the system's certificate store is empty: expected --etcd-cafile with the authority of etcd's certificate"
    )]
    NoAuthority,
    /// No endpoint could be used. Holds all endpoints with their failures.
    #[error("no etcd endpoint can be used: {}", list(.0))]
    Unreachable(Vec<(String, EtcdFailure)>),
    /// A call failed on a connection that had worked until then.
    #[error("etcd at {endpoint}, {operation}: {failure}")]
    Call {
        /// The endpoint.
        endpoint: String,
        /// The operation that failed, such as "list the leases".
        operation: &'static str,
        /// The failure.
        failure: EtcdFailure,
    },
}

fn list(endpoints: &[(String, EtcdFailure)]) -> String {
    let mut text = String::new();
    for (endpoint, failure) in endpoints {
        let separator = if text.is_empty() { "" } else { "; " };
        write!(text, "{separator}{endpoint}: {failure}").expect("a String takes all text");
    }
    text
}

impl EtcdError {
    /// See [`StoreError::is_transient`](crate::StoreError::is_transient).
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(endpoints) => endpoints.iter().any(|(_, f)| f.is_transient()),
            Self::Call { failure, .. } => failure.is_transient(),
            _ => false,
        }
    }

    /// Returns true if the response exceeds its length limit.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Call { failure, .. } if failure.is_too_large())
    }

    /// Returns true if etcd's history no longer contains the requested revision (compaction), or
    /// does not contain it yet.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self, Self::Call { failure, .. } if failure.is_overtaken())
    }
}

/// The reason why one endpoint could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdFailure {
    /// The connection was refused, because nothing listens at the address.
    #[error("connection refused: is etcd running, and listening there?")]
    Refused,
    /// The deadline passed without an answer.
    #[error("no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The host name of the endpoint has no address, or no name server answers.
    #[error(
        "host name `{host}` cannot be resolved ({reason}): correct --etcd-endpoints, /etc/hosts, or the name servers in /etc/resolv.conf"
    )]
    UnknownHost {
        /// The host name.
        host: String,
        /// The reason, in the C library's words.
        reason: String,
    },
    /// The endpoint is http, and the server speaks TLS. Holds the endpoint as https.
    #[error(
        "the server speaks TLS: expected `{0}` in --etcd-endpoints, and the authority of its certificate in --etcd-cafile"
    )]
    TlsExpected(String),
    /// The endpoint is https, and the server does not speak TLS. Holds the endpoint as http.
    #[error(
        "the server does not speak TLS: expected `{0}` in --etcd-endpoints, without --etcd-cafile, --etcd-certfile and --etcd-keyfile, or an etcd with --cert-file and --key-file"
    )]
    TlsUnknown(String),
    /// Another server than etcd answers. Holds what shows it.
    #[error(
        "this is no etcd ({0}): expected the address and port of etcd's --listen-client-urls in --etcd-endpoints"
    )]
    NotEtcd(String),
    /// The server's certificate is that of an authority, and not itself in the CA file. Holds the
    /// CA file.
    #[error(
        "the server's certificate is that of an authority (CA:TRUE): expected a certificate for a server, or exactly this one in {}",
        authority_file(.0)
    )]
    AuthorityAsServer(Option<PathBuf>),
    /// The server's certificate is signed by an authority that is not trusted. Holds the CA file;
    /// None for the system's certificate store.
    #[error("the server's certificate is signed by an authority that {} does not hold", ca(.0))]
    UnknownAuthority(Option<PathBuf>),
    /// The server's certificate is invalid for another reason.
    #[error("the server's certificate is refused: {0}")]
    ServerCertificate(String),
    /// The server rejected our client certificate, or requires one and got none.
    #[error(
        "the server refuses the client certificate ({0}): expected --etcd-certfile and --etcd-keyfile of an authority that the server trusts"
    )]
    ClientCertificate(String),
    /// The server closed the connection right after it was made. With TLS 1.3, a server that
    /// rejects a client does so after the handshake, and its reason may be lost.
    #[error(
        "the server closed the connection after the TLS handshake ({0}): expected --etcd-certfile and --etcd-keyfile of an authority that the server trusts, if it asks for a client certificate"
    )]
    ClosedAfterHandshake(String),
    /// The user name or password is wrong.
    #[error(
        "authentication failed: expected the user and password of an etcd user in --etcd-username and --etcd-password"
    )]
    Authentication,
    /// etcd requires authentication, and no user is configured.
    #[error("etcd has authentication enabled: expected --etcd-username and --etcd-password")]
    CredentialsRequired,
    /// The user lacks the permission. Holds the key prefix.
    #[error("permission denied: expected a user with read and write access to `{0}/`")]
    Permission(String),
    /// The connection does not work, or broke.
    #[error("{0}")]
    Transport(String),
    /// The server does not have etcd's v2 API.
    #[error(
        "etcd does not answer by its v2 API: start it with --enable-v2, which etcd has up to 3.5"
    )]
    NoV2,
    /// The answer by the v2 API is an error, or is no answer of etcd's. Holds what shows it.
    #[error("v2 API: {0}")]
    V2(String),
    /// A different etcd cluster answered than before.
    #[error("the answer is from another etcd cluster than before")]
    AnotherCluster,
    /// Any other error status from etcd.
    #[error("{message} ({code:?})")]
    Status {
        /// gRPC's status code.
        code: Code,
        /// etcd's message.
        message: String,
    },
}

fn ca(file: &Option<PathBuf>) -> String {
    match file {
        Some(path) => format!("--etcd-cafile {}", path.display()),
        None => "the system's certificate store (no --etcd-cafile is given)".to_owned(),
    }
}

fn authority_file(file: &Option<PathBuf>) -> String {
    match file {
        Some(path) => format!("--etcd-cafile {}", path.display()),
        None => "--etcd-cafile".to_owned(),
    }
}

impl EtcdFailure {
    /// Returns true if the failure may pass without intervention.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused
            | Self::Deadline(_)
            | Self::ClosedAfterHandshake(_)
            | Self::Transport(_)
            | Self::AnotherCluster
            // The name server, or whoever sets up etcd, may be late.
            | Self::UnknownHost { .. }
            | Self::TlsExpected(_)
            | Self::TlsUnknown(_)
            | Self::NotEtcd(_)
            | Self::NoV2
            | Self::V2(_) => true,
            Self::UnknownAuthority(_)
            | Self::AuthorityAsServer(_)
            | Self::ServerCertificate(_)
            | Self::ClientCertificate(_)
            | Self::Authentication
            | Self::CredentialsRequired
            | Self::Permission(_) => false,
            // An etcd that is out of space or lost its leader recovers; so does one that rejects an
            // outdated token or has an outdated view of the users.
            Self::Status { code, .. } => *code != Code::Unimplemented,
        }
    }

    /// Returns true if the failure does not tell what is wrong, so that the server should be asked
    /// which protocol it speaks.
    pub(super) fn is_vague(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::ClosedAfterHandshake(_) | Self::Deadline(_))
    }

    /// Returns true if the response exceeds its length limit: ours, in tonic's words, or the
    /// sender's, in those of gRPC for Go. Both use codes that etcd uses for other conditions as
    /// well.
    fn is_too_large(&self) -> bool {
        let Self::Status { code, message } = self else { return false };
        matches!(code, Code::OutOfRange) && message.contains("message length too large")
            || matches!(code, Code::ResourceExhausted) && message.contains("larger than max")
    }

    /// Returns true if etcd does not have the revision (etcd's api/v3rpc/rpctypes/error.go:
    /// ErrCompacted, ErrFutureRev), or if a different cluster answered.
    fn is_overtaken(&self) -> bool {
        match self {
            Self::Status { code: Code::OutOfRange, message } => {
                message.contains("has been compacted") || message.contains("is a future revision")
            }
            Self::AnotherCluster => true,
            _ => false,
        }
    }

    /// Returns true if the connection should be dropped. An error about the request alone is no
    /// reason for that.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            Self::Permission(_) => false,
            Self::Status { code, .. } => !matches!(
                code,
                Code::FailedPrecondition
                    | Code::NotFound
                    | Code::OutOfRange
                    | Code::ResourceExhausted
            ),
            _ => true,
        }
    }

    /// Classifies an error of the client library. `prefix` and `ca` appear in the message.
    pub(super) fn of(error: etcd_client::Error, prefix: &str, ca: Option<&PathBuf>) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(&status, prefix, ca),
            etcd_client::Error::TransportError(error) => Self::of_transport(&error, ca),
            other => Self::Transport(other.to_string()),
        }
    }

    fn of_status(status: &tonic::Status, prefix: &str, ca: Option<&PathBuf>) -> Self {
        if let Some(source) = status.source() {
            return Self::of_transport(source, ca);
        }
        // etcd uses one code for many conditions (etcd's api/v3rpc/rpctypes/error.go), so the text
        // decides.
        match (status.code(), status.message()) {
            (Code::PermissionDenied, _) => Self::Permission(prefix.to_owned()),
            (_, message) if message.contains("authentication failed") => Self::Authentication,
            (_, message) if message.contains("user name is empty") => Self::CredentialsRequired,
            // tonic's words for an answer that is not gRPC, and gRPC's for a service it lacks.
            (_, message) if message.contains("grpc-status header missing") => {
                let status = message.rsplit(' ').next().unwrap_or_default();
                Self::NotEtcd(format!("it answers with HTTP status {status} and without gRPC"))
            }
            (Code::Unimplemented, message) if message.contains("unknown service") => {
                Self::NotEtcd(message.to_owned())
            }
            (code, message) => Self::Status { code, message: message.to_owned() },
        }
    }

    /// Finds the root cause in a chain of errors that all say "transport error".
    pub(super) fn of_transport(error: &(dyn Error + 'static), ca: Option<&PathBuf>) -> Self {
        let mut text: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(failure) = error.downcast_ref::<Self>() {
                return failure.clone();
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    return Self::Refused;
                }
                // An I/O error exposes the error it wraps only through `get_ref`, not as its
                // source.
                if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref()) {
                    return Self::of_tls(tls, ca);
                }
            }
            if let Some(tls) = error.downcast_ref() {
                return Self::of_tls(tls, ca);
            }
            let line = error.to_string();
            if text.last().is_none_or(|last| !last.ends_with(&line)) {
                text.push(line);
            }
            next = error.source();
        }
        Self::Transport(text.join(": "))
    }

    fn of_tls(error: &rustls::Error, ca: Option<&PathBuf>) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                Self::UnknownAuthority(ca.cloned())
            }
            rustls::Error::InvalidCertificate(error) if is_authority(error) => {
                Self::AuthorityAsServer(ca.cloned())
            }
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                Self::NotEtcd("it speaks TLS, but refuses HTTP/2".to_owned())
            }
            rustls::Error::InvalidCertificate(error) => Self::ServerCertificate(error.to_string()),
            rustls::Error::AlertReceived(
                alert @ (AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate),
            ) => Self::ClientCertificate(format!("{alert:?}")),
            error => Self::Transport(format!("TLS: {error}")),
        }
    }
}

/// Returns true if the server's certificate is refused because it is that of an authority.
pub(super) fn is_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(cause) = error else { return false };
    matches!(cause.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_error_names_every_endpoint_and_failure() {
        let error = EtcdError::Unreachable(vec![
            ("http://a:2379".into(), EtcdFailure::Refused),
            ("http://b:2379".into(), EtcdFailure::Deadline(Duration::from_secs(3))),
        ]);
        assert_eq!(
            error.to_string(),
            "no etcd endpoint can be used: http://a:2379: connection refused: is etcd running, and listening there?; \
             http://b:2379: no answer within 3000 ms"
        );
    }

    #[test]
    fn connection_refused_is_transient_but_bad_password_is_not() {
        let unreachable = |failure| EtcdError::Unreachable(vec![("http://a:2379".into(), failure)]);
        assert!(unreachable(EtcdFailure::Refused).is_transient());
        assert!(!unreachable(EtcdFailure::Authentication).is_transient());
    }

    #[test]
    fn list_is_overtaken_by_another_cluster_not_by_aborted_call() {
        let (endpoint, operation) = ("http://a:2379".to_owned(), "list the leases");
        let error = EtcdError::Call { endpoint, operation, failure: EtcdFailure::AnotherCluster };
        assert!(error.is_overtaken() && error.is_transient());
        let (endpoint, message) = ("http://a:2379".to_owned(), "conflict".to_owned());
        let failure = EtcdFailure::Status { code: Code::Aborted, message };
        let error = EtcdError::Call { endpoint, operation, failure };
        assert!(!error.is_overtaken() && error.is_transient());
    }

    #[test]
    fn root_cause_is_found_below_wrappers() {
        let refused =
            io::Error::other(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let ca = PathBuf::from("/etc/ca.pem");
        let failure = EtcdFailure::of_transport(&refused, Some(&ca));
        assert_eq!(
            failure.to_string(),
            "the server's certificate is signed by an authority that --etcd-cafile /etc/ca.pem does not hold"
        );
    }
}
