//! Clients that exhaust a daemon's HTTP servers, and drift repairs during their attack.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use heddle_http::Descriptors;
use heddle_lab::{Daemon, Host, RaisedOnDrop, wait_until};

use crate::{Peer, SOON};

/// The way in which a client exhausts a server.
#[derive(Clone, Copy, Debug)]
pub enum Pressure {
    /// Connects, and sends nothing.
    Idle,
    /// Sends half of a request's first line.
    HalfLine,
    /// Sends a header at one byte per second.
    Trickle,
    /// Sends a header as long as the server accepts.
    Long,
    /// Sends a request, and does not read the answer.
    Stalled,
}

/// A client that reconnects as soon as it is disconnected.
#[derive(Debug)]
pub struct Client {
    kind: Pressure,
    address: SocketAddr,
    stream: Option<TcpStream>,
    sent: usize,
}

impl Client {
    /// Returns a client of a port on the loopback, not connected yet.
    pub fn new(kind: Pressure, port: u16) -> Self {
        Self { kind, address: ([127, 0, 0, 1], port).into(), stream: None, sent: 0 }
    }

    /// Performs the client's action, once a second.
    fn act(&mut self) {
        let mut byte = [0];
        if let Some(stream) = &mut self.stream {
            // Peek instead of read, so that the socket's buffer stays full.
            let gone = match stream.peek(&mut byte) {
                Ok(length) => length == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if gone {
                self.stream = None;
            }
        }
        if self.stream.is_none() {
            // If the connection is refused, the next call tries again.
            let Ok(mut stream) =
                TcpStream::connect_timeout(&self.address, Duration::from_millis(200))
            else {
                return;
            };
            let opening = match self.kind {
                Pressure::Idle => "",
                Pressure::HalfLine => "GET /status.j",
                Pressure::Trickle | Pressure::Long => {
                    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "
                }
                Pressure::Stalled => "GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
            };
            if stream.write_all(opening.as_bytes()).is_ok() {
                stream.set_nonblocking(true).unwrap();
                (self.stream, self.sent) = (Some(stream), 0);
            }
        }
        let Some(stream) = &mut self.stream else { return };
        match self.kind {
            Pressure::Trickle => drop(stream.write(b"a")),
            Pressure::Long => {
                const CHUNK: [u8; 4096] = [b'a'; 4096];
                while self.sent < 390_000
                    && let Ok(length) = stream.write(&CHUNK)
                {
                    self.sent += length;
                }
            }
            _ => {}
        }
    }
}

/// Returns 3,000 slow clients of the health port and the status page, and 60 stalled readers of the status page.
pub fn crowd(status_port: u16) -> Vec<Client> {
    let kinds = [Pressure::Idle, Pressure::HalfLine, Pressure::Trickle, Pressure::Long];
    let slow = (0..3000).map(|number| {
        let port = if number % 2 == 0 { Daemon::HEALTH_PORT } else { status_port };
        Client::new(kinds[number / 2 % kinds.len()], port)
    });
    slow.chain((0..60).map(|_| Client::new(Pressure::Stalled, status_port))).collect()
}

/// Keeps clients attacking a host while `work` runs, which begins once all clients have acted.
/// Returns the result of `work`.
pub fn besieged<T>(host: &Host, clients: Vec<Client>, work: impl FnOnce() -> T) -> T {
    const THREADS: usize = 4;
    Descriptors::raise(1);
    let ended = AtomicBool::new(false);
    let mut shares: Vec<Vec<Client>> = (0..THREADS).map(|_| Vec::new()).collect();
    for (number, client) in clients.into_iter().enumerate() {
        shares[number % THREADS].push(client);
    }
    std::thread::scope(|scope| {
        let _ended = RaisedOnDrop(&ended);
        let (ready, all_ready) = std::sync::mpsc::channel();
        for mut share in shares {
            let (ready, ended) = (ready.clone(), &ended);
            scope.spawn(move || {
                let act = || {
                    while !ended.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        share.iter_mut().for_each(Client::act);
                        // The receiver may be gone already.
                        let _ = ready.send(());
                        std::thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
                    }
                };
                host.namespace().enter(act).unwrap();
            });
        }
        drop(ready);
        for _ in 0..THREADS {
            all_ready.recv().unwrap();
        }
        work()
    })
}

/// Deletes the route to a peer and the overlay's firewall rules as another program would, and waits
/// until both are restored. Returns the time that took.
pub fn repairs(host: &Host, peer: Peer) -> Duration {
    let namespace = host.namespace();
    let rules = || {
        let mut save = Command::new("iptables-save");
        save.args(["-t", "filter"]);
        namespace.run(save).unwrap()
    };
    let route = || namespace.ip(&format!("route show {}/24", peer.subnet())).unwrap();
    let before = route();
    let wait_rule = || {
        let has = |rules: String| {
            let jumps =
                |line: &str| line.starts_with("-A FORWARD") && line.ends_with("FLANNEL-FWD");
            if rules.lines().any(jumps) { Ok(()) } else { Err(rules) }
        };
        wait_until("the rule", SOON, || has(rules())).unwrap();
    };
    wait_rule();
    assert!(before.contains("proto 72"), "{before}");
    let begun = Instant::now();
    namespace.ip(&format!("route del {}/24", peer.subnet())).unwrap();
    let mut flush = Command::new("iptables");
    flush.args(["-w", "-F", "FORWARD"]);
    namespace.run(flush).unwrap();
    let is_back = || if route() == before { Ok(()) } else { Err(route()) };
    wait_until("the route", SOON, is_back).unwrap();
    wait_rule();
    begun.elapsed()
}
