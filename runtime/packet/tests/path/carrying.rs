use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use heddle_lab::{RaisedOnDrop, next_datagram, on_one_processor, transfer};
use heddle_requires::requires;

use crate::overlay::{Node, PINGS, Pair, Plain, SOON, native, table, v4, v6};

/// The number of bytes in a stream: a fraction of what the daemon's end-to-end tests send.
const BYTES: u64 = 120_000_000;

#[test]
fn both_families_are_carried_unfragmented() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    for address in [v4(2), v6(2)] {
        let printed = pair.one.ping(&format!("{PINGS} {address}"));
        assert!(printed.contains(" 0% packet loss"), "{printed}");
    }
    // The longest unfragmented payload, less the headers of IPv4 and IPv6 and of ICMP.
    for (address, headers) in [(v4(2), 28), (v6(2), 48)] {
        let size = crate::overlay::MTU - headers;
        let printed = pair.one.ping(&format!("{PINGS} -M do -s {size} {address}"));
        assert!(printed.contains(" 0% packet loss"), "{printed}");
    }
    let counters = pair.one.running.counters();
    assert_eq!((counters.malformed, counters.spoofed_inner, counters.send_errors), (0, 0, 0));
}

#[test]
fn streams_in_both_directions_arrive_intact() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let (one, two) = (&pair.one, &pair.two);
    for address in [v4, v6] {
        thread::scope(|scope| {
            let there = || transfer(one.namespace(), two.namespace(), address(2), BYTES, None);
            let there = scope.spawn(there);
            let back = transfer(two.namespace(), one.namespace(), address(1), BYTES, None).unwrap();
            let there = there.join().unwrap().unwrap();
            for transfer in [there, back] {
                assert!(transfer.is_whole() && transfer.bytes == BYTES, "{transfer:?}");
            }
        });
    }
    for node in [one, two] {
        let counters = node.running.counters();
        assert_eq!((counters.malformed, counters.device_errors, counters.too_big), (0, 0, 0));
        assert!(counters.received_bytes > 2 * BYTES, "{counters:?}");
    }
}

#[test]
fn paths_with_and_without_offload_interoperate() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::uneven();
    let (one, two) = (&pair.one, &pair.two);
    for address in [v4, v6] {
        for (from, to, address) in [(one, two, address(2)), (two, one, address(1))] {
            let sent =
                transfer(from.namespace(), to.namespace(), address, 30_000_000, None).unwrap();
            assert!(sent.is_whole(), "{sent:?}");
        }
    }
    for node in [one, two] {
        let counters = node.running.counters();
        assert_eq!((counters.malformed, counters.device_errors, counters.send_errors), (0, 0, 0));
    }
}

#[test]
fn udp_datagrams_keep_boundaries_and_order() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    on_one_processor(|| {
        let pair = Pair::new();
        for (from, to) in [(v4(1), v4(2)), (v6(1), v6(2))] {
            let receiver = pair.two.namespace().udp_socket(SocketAddr::new(to, 0)).unwrap();
            let sender = pair.one.namespace().udp_socket(SocketAddr::new(from, 0)).unwrap();
            let to = receiver.local_addr().unwrap();
            // Runs of equal sizes, which may be sent together, and changes of size. No more at once
            // than a socket holds.
            for burst in 0..20u8 {
                let datagrams: Vec<Vec<u8>> =
                    (0..40).map(|i| vec![burst ^ i; 64 + 400 * usize::from(i / 15)]).collect();
                for datagram in &datagrams {
                    sender.send_to(datagram, to).unwrap();
                }
                for datagram in &datagrams {
                    let (source, received) = next_datagram(&receiver, SOON).unwrap().unwrap();
                    assert_eq!((&received, source.ip()), (datagram, from));
                }
            }
        }
    })
    .unwrap();
}

#[test]
fn plain_socket_peer_exchanges_bare_packets() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    let (IpAddr::V4(one), IpAddr::V4(two)) = (v4(1), v4(2)) else { unreachable!() };
    let mut request = Vec::new();
    PacketBuilder::ipv4(two.octets(), one.octets(), 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut request, &[0x5a; 300])
        .unwrap();
    plain.send(&request);
    let reply = plain.receive(|datagram| {
        let packet = SlicedPacket::from_ip(datagram).unwrap();
        matches!(packet.transport, Some(TransportSlice::Icmpv4(_))).then(|| datagram.to_vec())
    });
    let packet = SlicedPacket::from_ip(&reply).unwrap();
    let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("{packet:?}") };
    // The kernel's 64, less one hop.
    assert_eq!((ip.header().source_addr(), ip.header().destination_addr()), (one, two));
    assert_eq!((ip.header().ttl(), usize::from(ip.header().total_len())), (63, reply.len()));
    assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
    assert!(reply.ends_with(&[0x5a; 300]));
}

#[test]
fn offloaded_packets_are_complete_for_plain_peer() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    let sender = plain.node.namespace().udp_socket(SocketAddr::new(v4(1), 4000)).unwrap();
    for size in [0, 1, 64, 1000, 1000, 1000] {
        sender.send_to(&vec![9; size], SocketAddr::new(v4(2), 4001)).unwrap();
        let (length, sum) = plain.receive(|datagram| {
            let packet = SlicedPacket::from_ip(datagram).unwrap();
            let Some(NetSlice::Ipv4(ip)) = packet.net else { return None };
            let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
            let header = udp.to_header();
            let right = header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap();
            Some((udp.payload().len(), header.checksum == right))
        });
        assert_eq!((length, sum), (size, true));
    }
}

#[test]
fn forwarding_replaced_under_load_loses_no_packet() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let (one, two) = (&pair.one, &pair.two);
    let tables = [table(&[(2, &two.host)]), table(&[(1, &one.host)])];
    let done = AtomicBool::new(false);
    let dropped = |node: &Node| {
        let counters = node.running.counters();
        counters.plugin + counters.fallback + counters.spoofed_outer + counters.spoofed_inner
    };
    let before = [dropped(one), dropped(two)];
    let pings = one.namespace().ping_stream_every(Duration::from_millis(1), v4(2)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                one.running.set(native(Arc::clone(&tables[0])));
                two.running.set(native(Arc::clone(&tables[1])));
                thread::sleep(Duration::from_micros(200));
            }
        });
        let over = RaisedOnDrop(&done);
        let sent = transfer(one.namespace(), two.namespace(), v4(2), BYTES, None).unwrap();
        for _ in 0..5 {
            pings.wait_answers(1000).unwrap();
        }
        let pings = pings.finish().unwrap();
        drop(over);
        assert!(pings.lost.is_empty(), "{pings:?}");
        assert!(sent.is_whole(), "{sent:?}");
    });
    assert_eq!([dropped(one), dropped(two)], before);
}
