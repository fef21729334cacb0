//! Waiting for datagrams.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// As long as an IP packet can be.
const LONGEST: usize = 1 << 16;

/// The next datagram that a socket gets within this time, and where it comes from; `None` where nothing does.
///
/// A signal is no end of waiting, nor is having been stopped: the kernel reports both as `EINTR` where a socket has a
/// time limit (signal(7)), and [`UdpSocket::recv_from`] hands that on. The socket's own limit is this one afterwards.
///
/// # Errors
///
/// Whatever else the kernel reports, such as that an earlier datagram was refused.
pub fn next_datagram(
    socket: &UdpSocket,
    within: Duration,
) -> io::Result<Option<(SocketAddr, Vec<u8>)>> {
    let end = Instant::now() + within;
    let mut datagram = vec![0; LONGEST];
    loop {
        // None at all would be a wait without end.
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
    fn what_arrives_after_the_process_was_stopped_is_received() {
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
    fn nothing_is_waited_for_no_longer_than_allowed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(next_datagram(&socket, Duration::ZERO).unwrap(), None);
    }
}
