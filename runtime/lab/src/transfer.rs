//! Bulk transfers over TCP from one namespace to another, hashed at both ends.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::{Error, Namespace, wait_until};

/// Time limit without any progress.
const STALL: Duration = Duration::from_secs(10);

/// Time limit for a transfer, in addition to its duration at the given rate.
const LIMIT: Duration = Duration::from_secs(60);

/// The number of bytes written or read at once.
const CHUNK: usize = 1 << 16;

/// The result of a transfer. Each end has computed its hash independently.
#[derive(Clone, PartialEq, Eq)]
pub struct Transfer {
    /// SHA-256 of the bytes sent.
    pub sent: [u8; 32],
    /// SHA-256 of the bytes received.
    pub received: [u8; 32],
    /// The number of bytes received.
    pub bytes: u64,
    /// Time from the connection to the arrival of the last byte.
    pub took: Duration,
}

impl Transfer {
    /// Returns true if all bytes arrived as sent.
    pub fn is_whole(&self) -> bool {
        self.sent == self.received
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.is_whole() { "hashes equal" } else { "hashes differ" };
        let megabits = self.bytes as f64 * 8e-6 / self.took.as_secs_f64();
        write!(f, "{} bytes in {:.1?}, {megabits:.0} Mbit/s, {whole}", self.bytes, self.took)
    }
}

/// Sends pseudo-random bytes from one namespace to an address in another, at full speed or at a
/// rate in bytes per second.
///
/// # Errors
///
/// [`Error::Io`] if there is no connection, if there is no progress for ten seconds, or if the
/// transfer takes a minute longer than planned at that rate.
pub fn transfer(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: u64,
    rate: Option<u64>,
) -> Result<Transfer, Error> {
    let what = |doing: &str| format!("{doing} {bytes} bytes from {} to {address}", from.name());
    let listener = to
        .enter(|| TcpListener::bind(SocketAddr::new(address, 0)))?
        .map_err(Error::io(what("listening for")))?;
    let target = listener.local_addr().map_err(Error::io(what("listening for")))?;
    let planned = rate.map_or(0.0, |rate| bytes as f64 / rate as f64);
    let deadline = Instant::now() + LIMIT + Duration::from_secs_f64(planned);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&listener, deadline));
        let sender = from.enter(|| send(target, bytes, rate, deadline))?;
        let received = match receiver.join() {
            Ok(received) => received,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let sent = sender.map_err(Error::io(what("sending")))?;
        let (received, bytes, took) = received?.map_err(Error::io(what("receiving")))?;
        Ok(Transfer { sent, received, bytes, took })
    })
}

fn send(
    target: SocketAddr,
    bytes: u64,
    rate: Option<u64>,
    deadline: Instant,
) -> io::Result<[u8; 32]> {
    let mut stream = TcpStream::connect_timeout(&target, STALL)?;
    stream.set_write_timeout(Some(STALL))?;
    let start = Instant::now();
    let mut hash = Sha256::new();
    let mut random = Random(bytes);
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    while sent < bytes {
        in_time(deadline)?;
        let length = usize::try_from(bytes - sent).unwrap_or(CHUNK).min(CHUNK);
        random.fill(&mut chunk);
        hash.update(&chunk[..length]);
        stream.write_all(&chunk[..length])?;
        sent += length as u64;
        if let Some(rate) = rate {
            let due = start + Duration::from_secs_f64(sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(hash.finalize().into())
}

type Received = io::Result<([u8; 32], u64, Duration)>;

fn receive(listener: &TcpListener, deadline: Instant) -> Result<Received, Error> {
    listener.set_nonblocking(true).map_err(Error::io("listening"))?;
    // The same limit as the sender's.
    let (stream, _) = wait_until("a connection", STALL, || listener.accept())?;
    Ok(read(stream, deadline))
}

fn read(mut stream: TcpStream, deadline: Instant) -> Received {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STALL))?;
    let start = Instant::now();
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    loop {
        in_time(deadline)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok((hash.finalize().into(), received, start.elapsed())),
            Ok(length) => {
                hash.update(&chunk[..length]);
                received += length as u64;
            }
            // Interrupted by a signal or a stop: see `next_datagram`.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn in_time(deadline: Instant) -> io::Result<()> {
    if Instant::now() < deadline { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
}

/// Marsaglia's xorshift generator: cheap, and its output does not repeat.
struct Random(u64);

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        // A state of 0 would never change.
        self.0 |= 1 << 63;
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_do_not_repeat() {
        let mut random = Random(0);
        let mut words = vec![0; 1 << 16];
        random.fill(&mut words);
        let distinct: std::collections::BTreeSet<_> = words.chunks(8).collect();
        assert_eq!(distinct.len(), 1 << 13);
    }
}
