use std::net::IpAddr;

use etherparse::{Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use heddle_requires::requires;

use crate::overlay::{PINGS, Pair, Plain, v4, v6};

#[test]
fn expired_ttl_is_reported_to_container() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    for address in [v4(2), v6(2)] {
        let printed = pair.one.ping(&format!("-c 1 -W 3 -t 1 {address}"));
        assert!(
            printed.to_lowercase().contains("time") && printed.contains("exceeded"),
            "{printed}"
        );
    }
    pair.one.wait_for("two answers", |counters| (counters.ttl_exceeded, counters.icmp) == (2, 2));
}

#[test]
fn remote_container_is_reported_to_through_its_peer() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    // The second hop is the other path.
    for (address, hop) in [(v4(2), v4(2)), (v6(2), v6(2))] {
        let printed = pair.one.ping(&format!("-c 1 -W 3 -t 2 {address}"));
        assert!(printed.contains(&format!("From {hop}")), "{printed}");
        assert!(
            printed.to_lowercase().contains("time") && printed.contains("exceeded"),
            "{printed}"
        );
    }
    assert_eq!(pair.two.running.counters().ttl_exceeded, 2);

    let plain = Plain::new();
    let (IpAddr::V4(one), IpAddr::V4(two)) = (v4(1), v4(2)) else { unreachable!() };
    let mut packet = Vec::new();
    PacketBuilder::ipv4(two.octets(), one.octets(), 1).udp(1, 2).write(&mut packet, b"x").unwrap();
    plain.send(&packet);
    let source = plain.receive(|datagram| {
        let packet = SlicedPacket::from_ip(datagram).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
            (packet.net, packet.transport)
        else {
            return None;
        };
        matches!(icmp.header().icmp_type, Icmpv4Type::TimeExceeded(_))
            .then(|| ip.header().source_addr())
    });
    assert_eq!(source, one);
}

#[test]
fn unroutable_destination_is_reported_to_container() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let printed = pair.one.ping("-c 1 -W 3 10.244.9.9");
    assert!(printed.contains("Net Unreachable"), "{printed}");
    let printed = pair.one.ping("-c 1 -W 3 fd00:10:244:9::9");
    assert!(printed.contains("No route"), "{printed}");
    // In addition to the kernel's own messages to all routers there.
    assert!(pair.one.running.counters().no_route >= 2);
}

#[test]
fn oversized_packet_is_fragmented_or_reported() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let (one, two) = (&pair.one, &pair.two);
    // As if a router on the way had reported it.
    one.ip(&format!("route add {}/32 dev eth0 mtu 1400", two.host.v4()));
    one.ip(&format!("route add {}/128 dev eth0 mtu 1400", two.host.v6()));

    let printed = one.ping(&format!("-c 2 -i 0.2 -W 3 -M do -s 1400 {}", v4(2)));
    assert!(printed.contains("mtu = 1372") || printed.contains("mtu=1372"), "{printed}");
    let printed = one.ping(&format!("-c 2 -i 0.2 -W 3 -M do -s 1380 {}", v6(2)));
    assert!(printed.contains("mtu = 1352") || printed.contains("mtu=1352"), "{printed}");
    assert!(one.running.counters().too_big >= 2);

    one.ip("route flush cache");
    let printed = one.ping(&format!("{PINGS} -M dont -s 1400 {}", v4(2)));
    assert!(printed.contains(" 0% packet loss"), "{printed}");
    assert!(one.running.counters().fragmented >= 1);

    // Streams discover the path MTU.
    for address in [v4(2), v6(2)] {
        let sent = heddle_lab::transfer(one.namespace(), two.namespace(), address, 5_000_000, None)
            .unwrap();
        assert!(sent.is_whole(), "{sent:?}");
    }
    assert_eq!(one.running.counters().send_errors, 0);
}
