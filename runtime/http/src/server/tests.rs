//! The server and its clients over real sockets.

use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::{Answer, Bytes};

/// Time limit for whatever a test waits for, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// More than sockets and buffers take on the way.
const LARGE: usize = 8 << 20;

/// A document whose memory is watched.
struct Document(Arc<Vec<u8>>);

impl AsRef<[u8]> for Document {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A site with a document that all share, one that is new each time, and one that is never made.
#[derive(Clone, Default)]
struct Example {
    made: Arc<Mutex<Vec<Weak<Vec<u8>>>>>,
}

impl Site for Example {
    async fn answer(&self, path: &str) -> Answer {
        static SHARED: std::sync::LazyLock<Bytes> =
            std::sync::LazyLock::new(|| vec![b'x'; LARGE].into());
        match path {
            "/" => Answer::text(crate::StatusCode::OK, "hello\n"),
            "/shared" => Answer::document("text/plain", SHARED.clone()),
            "/new" => {
                let document = Arc::new(vec![b'y'; LARGE]);
                self.made.lock().unwrap().push(Arc::downgrade(&document));
                Answer::document("text/plain", Bytes::from_owner(Document(document)))
            }
            "/never" => pending().await,
            _ => Answer::not_found(),
        }
    }
}

impl Example {
    /// Returns how many new documents are still in memory.
    fn alive(&self) -> usize {
        self.made.lock().unwrap().iter().filter(|made| made.strong_count() > 0).count()
    }
}

/// So many connections, for as long as they like.
fn patient(connections: usize) -> Limits {
    let limit = 10 * LIMIT;
    Limits {
        opening: limit,
        kept: limit,
        answering: limit,
        stalled: limit,
        exchange: limit,
        ..Limits::new(connections)
    }
}

/// Takes an address. The kernel gives no connection up: that is left to the server.
fn listen() -> Listener {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "--x").unwrap();
    socket2::SockRef::from(&listener.socket).set_tcp_user_timeout(None).unwrap();
    listener
}

fn serve_on(listener: Listener, limits: Limits, site: Example) {
    let server = Server { name: "test", hosts: Hosts::Any, limits };
    server.serve_tcp(&Worker::start().unwrap(), listener, site).unwrap();
}

/// Starts a server with these limits, and returns its address.
fn start(limits: Limits, site: Example) -> SocketAddr {
    let listener = listen();
    let address = listener.address();
    serve_on(listener, limits, site);
    address
}

/// Connects a client that waits for a while and not for ever.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Connects a client that asks for a path.
fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    stream
}

/// Reads until the connection ends, whichever way, and returns what came.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A connection that is reset has ended.
    if let Err(error) = stream.read_to_end(&mut read) {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "nothing came for {LIMIT:?}");
    }
    read
}

/// Sends bytes and returns everything that comes back.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    String::from_utf8_lossy(&rest(stream)).into_owned()
}

fn get(address: SocketAddr) -> String {
    exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// Waits until something holds.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn idle_connections_make_way_for_a_request() {
    let address = start(patient(4), Example::default());
    let idle: Vec<_> = (0..50).map(|_| connect(address)).collect();
    for _ in 0..10 {
        assert!(get(address).ends_with("hello\n"));
    }
    // Whoever was pushed out is told so. The last ones may still be there.
    for stream in idle.into_iter().take(46) {
        assert_eq!(rest(stream), b"");
    }
}

#[test]
fn half_requests_and_stalled_readers_make_way_as_well() {
    let address = start(patient(4), Example::default());
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut half = connect(address);
        half.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
        held.extend([half, ask(address, "/shared"), ask(address, "/never")]);
        assert!(get(address).ends_with("hello\n"));
    }
}

#[test]
fn request_that_is_there_is_answered_before_others_are_let_in() {
    let listener = listen();
    let address = listener.address();
    let mut connections = Vec::new();
    let mut asking = Vec::new();
    // All wait in the kernel for the server to begin.
    for _ in 0..10 {
        asking.push(ask(address, "/"));
        connections.extend((0..10).map(|_| connect(address)));
    }
    serve_on(listener, patient(4), Example::default());
    for stream in asking {
        assert!(String::from_utf8(rest(stream)).unwrap().ends_with("hello\n"));
    }
}

#[test]
fn request_is_answered_while_others_connect_without_end() {
    let address = start(patient(4), Example::default());
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut idle = std::collections::VecDeque::new();
            while !ended.load(Ordering::Relaxed) {
                idle.push_back(connect(address));
                if idle.len() > 100 {
                    idle.pop_front();
                }
            }
        });
        let answers: Vec<_> = (0..50).map(|_| get(address)).collect();
        ended.store(true, Ordering::Relaxed);
        let answered = answers.iter().filter(|answer| answer.ends_with("hello\n")).count();
        assert_eq!(answered, 50, "{answers:?}");
    });
}

#[test]
fn request_that_does_not_end_is_cut() {
    let limits = Limits { opening: Duration::from_millis(100), ..patient(4) };
    let address = start(limits, Example::default());
    let idle = connect(address);
    let mut slow = connect(address);
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // A byte of a header now and then is no progress.
    wait("a slow request is cut", || {
        slow.write_all(b"a").and_then(|()| slow.write_all(b"a")).is_err()
    });
    assert_eq!(rest(idle), b"");
}

#[test]
fn connection_that_is_kept_idle_is_closed() {
    let limits = Limits { kept: Duration::from_millis(100), ..patient(4) };
    let address = start(limits, Example::default());
    let mut stream = ask(address, "/");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let answers = String::from_utf8(rest(stream)).unwrap();
    assert_eq!(answers.matches("hello\n").count(), 2, "{answers}");
}

#[test]
fn stalled_reader_is_cut() {
    let limits = Limits { stalled: Duration::from_millis(100), ..patient(4) };
    let site = Example::default();
    let address = start(limits, site.clone());
    let reader = ask(address, "/new");
    wait("the document is made", || !site.made.lock().unwrap().is_empty());
    wait("its memory is free", || site.alive() == 0);
    assert!(rest(reader).len() < LARGE);
}

#[test]
fn slow_reader_with_progress_has_its_document() {
    let limits = Limits { stalled: Duration::from_secs(5), ..patient(4) };
    let address = start(limits, Example::default());
    let mut reader = ask(address, "/new");
    let (mut read, mut buffer) = (0, vec![0; LARGE / 64]);
    let begun = Instant::now();
    while read < LARGE {
        reader.read_exact(&mut buffer).unwrap();
        read += buffer.len();
        thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() > limits.stalled);
}

#[test]
fn reader_that_takes_too_long_altogether_is_cut() {
    let limits = Limits { exchange: Duration::from_millis(100), ..patient(4) };
    let site = Example::default();
    let address = start(limits, site.clone());
    let mut reader = ask(address, "/new");
    // At this pace it would take ten minutes.
    let mut byte = [0; 64];
    wait("the document is made", || !site.made.lock().unwrap().is_empty());
    wait("a reader with little progress is cut", || {
        let _ = reader.read(&mut byte);
        site.alive() == 0
    });
}

#[test]
fn answer_that_is_never_made_is_given_up() {
    let limits = Limits { answering: Duration::from_millis(100), ..patient(4) };
    let address = start(limits, Example::default());
    assert_eq!(rest(ask(address, "/never")), b"");
}

#[test]
fn documents_in_the_hands_of_readers_are_bounded() {
    let limits = Limits { documents: 3 * LARGE, ..patient(64) };
    let site = Example::default();
    let address = start(limits, site.clone());
    let mut readers = Vec::new();
    for count in 1..=20 {
        readers.push(ask(address, "/new"));
        wait("a document is made", || site.made.lock().unwrap().len() == count);
        wait("others are dropped", || site.alive() <= 3);
    }
    // The last one is no worse off for it.
    let last = rest_of_body(readers.pop().unwrap());
    assert_eq!(last, LARGE);
}

/// Reads an answer with a large body, and returns how long the body is.
fn rest_of_body(mut stream: TcpStream) -> usize {
    let mut read = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = stream.read(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..length]);
        let head = read.windows(4).position(|window| window == b"\r\n\r\n");
        match head.map(|head| read.len() - head - 4) {
            Some(body) if body >= LARGE || length == 0 => return body,
            _ => assert_ne!(length, 0, "the answer ends early"),
        }
    }
}

#[test]
fn what_is_no_request_of_http_1_is_refused() {
    let address = start(Limits::new(16), Example::default());
    for (request, answer) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], ""),
        (b"nonsense\r\n\r\n", "HTTP/1.1 400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 400"),
        (b"GET http://y/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n", "HTTP/1.1 413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 413"),
    ] {
        let found = exchange(address, request);
        let text = String::from_utf8_lossy(request);
        assert!(found.starts_with(answer), "{text}: {found}");
        assert!(!answer.is_empty() || found.is_empty(), "{text}: {found}");
    }
    let mut long = b"GET / HTTP/1.1\r\nHost: x\r\na: ".to_vec();
    long.resize(1 << 16, b'a');
    let mut stream = connect(address);
    // The rest is not read.
    let _ = stream.write_all(&long);
    let answer = String::from_utf8_lossy(&rest(stream)).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[test]
fn head_is_an_answer_without_its_body() {
    let address = start(Limits::new(4), Example::default());
    let answer = exchange(address, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.contains("content-length: 6\r\n"), "{answer}");
}

#[test]
fn trouble_is_told_of_once_in_a_while() {
    let (mut quiet, now) = (Quiet::default(), Instant::now());
    assert_eq!(quiet.count(now), Some(1));
    assert_eq!((quiet.count(now), quiet.count(now + QUIET / 2)), (None, None));
    assert_eq!(quiet.count(now + QUIET), Some(3));
    assert_eq!(quiet.count(now + QUIET), None);
}
