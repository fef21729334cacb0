//! A TCP address.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The most that the kernel keeps of an answer which a client does not read, in bytes; it counts bookkeeping in, and so
/// doubles it. Without a limit it is some MiB for each client.
const SEND_BUFFER: usize = 128 << 10;

/// The most that the kernel keeps of what a client sends, in bytes, doubled as well: a request is small.
const RECEIVE_BUFFER: usize = 16 << 10;

/// After so long without an acknowledgement, or with a receive window of zero, the kernel gives a connection up: also one
/// that this process has closed already and whose client does not take the rest.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Maximum number of connections that wait in the kernel to be accepted (listen(2)).
const BACKLOG: i32 = 1024;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({flags}): {source}{}", advice(.source))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// The flags that name it.
    pub flags: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

/// Returns what to do about it.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; each daemon on a host needs another port",
        _ => "",
    }
}

/// A TCP address that this process listens on.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) flags: &'static str,
}

impl Listener {
    /// Takes an address. `flags` are those that name it.
    ///
    /// # Errors
    ///
    /// [`ListenError`], above all because another daemon has the address.
    pub fn bind(address: SocketAddr, flags: &'static str) -> Result<Self, ListenError> {
        let bound = bind(address).and_then(|socket| {
            let address = socket.local_addr()?;
            Ok(Self { socket, address, flags })
        });
        bound.map_err(|source| ListenError { address, flags, source })
    }

    /// Returns the address, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns true if programs on other hosts may reach it.
    pub fn is_public(&self) -> bool {
        !is_loopback(self.address.ip())
    }
}

/// Returns true for addresses of the loopback, `::ffff:127.0.0.1` among them.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Accepted connections inherit all settings.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_in_use_names_its_flag_and_what_helps() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), "--x").unwrap();
        let address = first.address();
        let error = Listener::bind(address, "--status-address").unwrap_err().to_string();
        let port = address.port().to_string();
        for text in [port.as_str(), "--status-address", "in use", "another port"] {
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn addresses_that_other_hosts_reach_are_public() {
        for (address, public) in [
            ("0.0.0.0:0", true),
            ("[::]:0", true),
            ("127.0.0.1:0", false),
            ("127.0.0.9:0", false),
            ("[::ffff:127.0.0.1]:0", false),
        ] {
            let listener = Listener::bind(address.parse().unwrap(), "--x").unwrap();
            assert_eq!(listener.is_public(), public, "{address}");
        }
    }
}
