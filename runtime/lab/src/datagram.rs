//! Receives datagrams with a time limit.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The maximum length of an IP packet in bytes.
const LONGEST: usize = 1 << 16;

/// Returns the next datagram that arrives within this time, and its source; `None` if none does.
///
/// A signal or a stopped process does not end the wait: the kernel reports both as `EINTR` on a
/// socket with a timeout (signal(7)), and [`UdpSocket::recv_from`] passes that on. Changes the
/// socket's read timeout.
///
/// # Errors
///
/// Any other error from the kernel, such as the refusal of an earlier datagram.
pub fn next_datagram(
    socket: &UdpSocket,
    within: Duration,
) -> io::Result<Option<(SocketAddr, Vec<u8>)>> {
    let end = Instant::now() + within;
    let mut datagram = vec![0; LONGEST];
    loop {
        // A timeout of zero would mean to wait forever.
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => {
                datagram.truncate(length);
                return Ok(Some((from, datagram)));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn datagram_after_stop_and_continue_is_received() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let stop = "sleep 0.1; kill -STOP $PPID; sleep 0.05; kill -CONT $PPID";
        let mut shell = Command::new("sh").args(["-c", stop]).spawn().unwrap();
        let (from, datagram) = std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(shell.wait().unwrap().success());
                UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"at last", to).unwrap();
            });
            next_datagram(&socket, Duration::from_secs(5)).unwrap().unwrap()
        });
        assert_eq!((from.ip(), &datagram[..]), (to.ip(), &b"at last"[..]));
    }

    #[test]
    fn wait_for_datagram_respects_time_limit() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(next_datagram(&socket, Duration::ZERO).unwrap(), None);
    }
}
