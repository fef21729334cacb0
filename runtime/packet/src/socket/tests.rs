use std::collections::HashMap;
use std::net::UdpSocket;

use super::*;

fn outgoing<'a>(header: &'a [u8], payload: &'a [u8]) -> Outgoing<'a> {
    Outgoing { peer: 0, to: [127, 0, 0, 1].into(), header, payload }
}

fn receive(socket: &Socket) -> Vec<(usize, usize)> {
    let mut buffer = vec![0; 65_536];
    let received = std::iter::from_fn(|| socket.receive(SHARED, &mut buffer).unwrap());
    received.map(|received| (received.length, received.size)).collect()
}

#[test]
fn datagrams_of_one_size_share_a_message() {
    let receiver = Socket::open("127.0.0.1:0".parse().unwrap(), 0, true).unwrap();
    let port = rustix::net::getsockname(&receiver.lanes[SHARED]).unwrap();
    let port = SocketAddr::try_from(port).unwrap().port();
    let sender = Socket::open("127.0.0.1:0".parse().unwrap(), port, true).unwrap();
    sender
        .send(&[outgoing(b"head", b"body"), outgoing(b"he", b"ad"), outgoing(b"", b"tail")][..2])
        .unwrap();
    sender.send(&[outgoing(b"", b"alone")]).unwrap();
    sender.send(&[outgoing(b"", b"")]).unwrap();
    assert_eq!(receive(&receiver), [(12, 8), (5, 5), (0, 0)]);
}

#[test]
fn bind_to_port_in_use_fails() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = Socket::open(taken.local_addr().unwrap(), 1, true).unwrap_err().to_string();
    assert!(error.contains("another program has the port"), "{error}");
}

#[test]
fn bind_to_missing_address_fails() {
    let error = Socket::open("192.0.2.1:0".parse().unwrap(), 1, true).unwrap_err().to_string();
    assert!(error.contains("no interface has the address"), "{error}");
}

#[test]
fn datagram_exceeding_path_mtu_is_not_fragmented() {
    let socket = Socket::open("127.0.0.1:0".parse().unwrap(), 9, true).unwrap();
    assert_eq!(socket.path_mtu([127, 0, 0, 1].into()).unwrap(), 65_535);
    assert_eq!(socket.send(&[outgoing(&[], &[0; 65_508])]), Err(Errno::EMSGSIZE));
}

/// Returns a sender at an address of the loopback device, with any port.
fn sender(address: [u8; 4]) -> UdpSocket {
    UdpSocket::bind((std::net::Ipv4Addr::from(address), 0)).unwrap()
}

/// Returns a socket and its address.
fn receiver(local: &str) -> (Socket, SocketAddr) {
    let socket = Socket::open(local.parse().unwrap(), 9, true).unwrap();
    let to = rustix::net::getsockname(&socket.lanes[SHARED]).unwrap();
    (socket, SocketAddr::try_from(to).unwrap())
}

/// Receives all datagrams, and returns their number in each lane.
fn counts(socket: &Socket) -> [usize; LANES] {
    let mut buffer = vec![0; 65_536];
    std::array::from_fn(|lane| {
        let received = std::iter::from_fn(|| socket.receive(lane, &mut buffer).unwrap());
        received.map(Received::count).sum()
    })
}

#[test]
fn sources_are_steered_regardless_of_port() {
    let (socket, to) = receiver("127.0.0.1:0");
    let addresses = [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]];
    let send = || {
        for address in addresses {
            for _ in 0..8 {
                sender(address).send_to(b"hello", to).unwrap();
            }
        }
    };
    send();
    assert_eq!(counts(&socket), [24, 0, 0, 0, 0, 0, 0, 0, 0]);
    let steering = [(addresses[1].into(), 5), (addresses[2].into(), 8)];
    socket.steer(steering.into_iter()).unwrap();
    send();
    assert_eq!(counts(&socket), [8, 0, 0, 0, 0, 8, 0, 0, 8]);
    socket.steer(std::iter::empty()).unwrap();
    send();
    assert_eq!(counts(&socket), [24, 0, 0, 0, 0, 0, 0, 0, 0]);

    let (socket, to) = receiver("[::1]:0");
    let send = || UdpSocket::bind("[::1]:0").unwrap().send_to(b"hello", to).unwrap();
    // Addresses that differ in only one word do not match.
    let others = ["1::1", "0:0:1::1", "::1:0:0:1", "::2"].map(|it| it.parse().unwrap());
    let others = || others.into_iter().zip(1..);
    socket.steer(others()).unwrap();
    send();
    assert_eq!(counts(&socket), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    socket.steer(others().chain([("::1".parse().unwrap(), 6)])).unwrap();
    send();
    assert_eq!(counts(&socket), [0, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn socket_with_lanes_does_not_share_its_port() {
    let (socket, to) = receiver("127.0.0.1:0");
    assert!(socket.has_lanes());
    let error = Socket::open(to, 1, true).unwrap_err().to_string();
    assert!(error.contains("another program has the port"), "{error}");
}

/// A receiver that reads and steers like the real one, and keeps the datagrams.
struct Reader {
    socket: Socket,
    lanes: crate::lanes::Lanes,
}

impl Reader {
    /// Reads all available datagrams. Returns the payloads, by source.
    fn read(&mut self) -> HashMap<IpAddr, Vec<Vec<u8>>> {
        let (mut payloads, mut buffer) = (HashMap::<_, Vec<_>>::new(), vec![0; 65_536]);
        self.lanes.awake().count();
        while let Some(lane) = self.lanes.next() {
            let now = std::time::Instant::now();
            match self.socket.receive(lane, &mut buffer).unwrap() {
                None => self.lanes.empty(lane, now),
                Some(received) => {
                    let datagrams = buffer[..received.length].chunks(received.size.max(1));
                    let of_source = payloads.entry(received.from).or_default();
                    of_source.extend(datagrams.map(<[u8]>::to_vec));
                    self.lanes.received(lane, received.arrival(), now);
                }
            }
            if self.lanes.decide(|_| true, self.socket.buffer(), now).is_some() {
                self.socket.steer(self.lanes.steering()).unwrap();
                self.lanes.on_steered();
            }
        }
        payloads
    }
}

#[test]
#[expect(clippy::disallowed_macros, reason = "the harness captures the output of a test")]
fn flood_of_one_source_leaves_the_buffer_to_others() {
    const QUIET: usize = 100;
    let (socket, to) = receiver("127.0.0.1:0");
    let mut reader = Reader { socket, lanes: crate::lanes::Lanes::new(true) };
    let [flooder, quiet] = [[127, 0, 0, 2], [127, 0, 0, 3]].map(sender);
    let from = |socket: &UdpSocket| socket.local_addr().unwrap().ip();
    let mut number = 0_u64;
    let mut arrived = Vec::new();
    // The first round fills the buffer, the second reveals the source, and in the third that
    // source only hurts itself.
    for round in 0..3 {
        // More than fits, from many ports.
        for _ in 0..reader.socket.buffer() / 1000 {
            // The kernel holds some back for a while on their way to the socket.
            if number.is_multiple_of(128) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let mut payload = [0; 1000];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            number += 1;
            flooder.send_to(&payload, to).unwrap();
        }
        for _ in 0..QUIET {
            quiet.send_to(b"hello", to).unwrap();
        }
        let mut payloads = reader.read();
        let kept = payloads.remove(&from(&quiet)).map_or(0, |payloads| payloads.len());
        println!("round {round}: {kept} of {QUIET} datagrams of the quiet source");
        arrived.push(kept);
        let flood = payloads.remove(&from(&flooder)).unwrap();
        // Nobody is shut out, and the order is kept while the source is moved.
        let numbers: Vec<_> = flood
            .iter()
            .map(|payload| u64::from_be_bytes(payload[..8].try_into().unwrap()))
            .collect();
        assert!(numbers.len() > 100 && numbers.is_sorted());
    }
    assert!(arrived[0] < QUIET / 2, "the flood did not fill the buffer");
    assert_eq!(arrived[2], QUIET);
}
