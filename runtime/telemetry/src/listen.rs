//! An address, and what is served there.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

/// An address is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({flags}): {source}{}", advice(.source))]
pub struct ListenError {
    /// Which one.
    pub address: SocketAddr,
    /// The flags that name it.
    pub flags: &'static str,
    /// The system's reason.
    pub source: std::io::Error,
}

/// What is to be done about it.
fn advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => "; each daemon on a host needs another port",
        _ => "",
    }
}

/// An address that nobody else has any more.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Takes an address. `flags` are those that name it.
    ///
    /// Needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ListenError`], when it is not to be had: above all because another daemon has it.
    pub async fn bind(address: SocketAddr, flags: &'static str) -> Result<Self, ListenError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Self).map_err(|source| ListenError { address, flags, source })
    }

    /// Serves in the background until the daemon ends.
    pub fn serve(self, router: Router) {
        tokio::spawn(async move {
            // axum retries failed accepts by itself and never returns.
            if let Err(error) = axum::serve(self.0, router).await {
                tracing::error!("an HTTP server ended: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_flag_and_what_helps() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), "--x").await.unwrap();
        let address = first.0.local_addr().unwrap();
        let error = Listener::bind(address, "--status-address").await.unwrap_err().to_string();
        let port = address.port().to_string();
        for text in [port.as_str(), "--status-address", "in use", "another port"] {
            assert!(error.contains(text), "{error}");
        }
    }
}
