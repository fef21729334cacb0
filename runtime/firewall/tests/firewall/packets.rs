//! The treatment of packets on a host: their source address on arrival, and whether they arrive.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use heddle_core::address::Family;
use heddle_firewall::{Firewall, Mode, Rules};
use heddle_lab::{Namespace, next_datagram, wait_until};
use heddle_requires::requires;

use crate::host::{ensure, rules, sh};

/// A host that forwards between three neighbours.
struct World {
    host: Namespace,
    /// A container in this node's subnet.
    container: Neighbour,
    /// A container in another node's subnet.
    far: Neighbour,
    /// A host outside the overlay.
    outsider: Neighbour,
}

struct Neighbour {
    namespace: Namespace,
    address: IpAddr,
    /// The host's address on the network of this neighbour.
    gateway: IpAddr,
}

/// Runs a test in a world of each family.
fn in_worlds(test: impl Fn(&World, Family)) {
    requires!(Namespaces, Program("ip"), Program("ping"), Program("iptables"), Program("nft"),);
    for family in [Family::V4, Family::V6] {
        test(&World::new(family), family);
    }
}

impl World {
    fn new(family: Family) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("hdl-fw-{}-{number}-{role}", std::process::id());
        let host = Namespace::create(name("host")).unwrap();
        // Otherwise link-local addresses, from which neighbours are resolved, would not be usable
        // for a second.
        let no_dad = |namespace: &Namespace| {
            namespace.set_sysctl("ipv6/conf/default/dad_transmits", "0").unwrap();
        };
        no_dad(&host);
        host.set_sysctl("ipv4/ip_forward", "1").unwrap();
        host.set_sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        let neighbour = |role: &str, v4: &str, v6: &str| {
            let (network, length) = match family {
                Family::V4 => (v4, 24),
                Family::V6 => (v6, 64),
            };
            let address = |number: u8| format!("{network}{number}");
            let namespace = Namespace::create(name(role)).unwrap();
            no_dad(&namespace);
            let nodad = if family == Family::V6 { " nodad" } else { "" };
            host.ip(&format!(
                "link add {role} type veth peer name eth0 netns {}",
                namespace.name()
            ))
            .unwrap();
            host.ip(&format!("address add {}/{length} dev {role}{nodad}", address(1))).unwrap();
            host.ip(&format!("link set {role} up")).unwrap();
            namespace.ip(&format!("address add {}/{length} dev eth0{nodad}", address(2))).unwrap();
            namespace.ip("link set eth0 up").unwrap();
            namespace.ip(&format!("route add default via {} dev eth0", address(1))).unwrap();
            Neighbour {
                namespace,
                address: address(2).parse().unwrap(),
                gateway: address(1).parse().unwrap(),
            }
        };
        let container = neighbour("container", "10.244.8.", "2001:cafe:42:8::");
        let far = neighbour("far", "10.244.36.", "2001:cafe:42:36::");
        let outsider = neighbour("outsider", "192.0.2.", "2001:db8:1::");
        // Wait until each interface has its carrier, which the kernel checks once a second.
        for (sender, receiver) in [(&container, &far), (&far, &outsider), (&outsider, &container)] {
            wait_until("packets passing", Duration::from_secs(10), || {
                sent(sender, receiver).ok_or("none passed")
            })
            .unwrap();
        }
        Self { host, container, far, outsider }
    }

    fn ensure(&self, rules: Rules) {
        self.host.enter(|| ensure(&mut Firewall::new(rules))).unwrap();
    }

    /// Refuses forwarding in every place where iptables can.
    fn refuse(&self) {
        let commands = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]
            .map(|command| format!("{command} -P FORWARD DROP\n"));
        self.host.enter(|| sh(&commands.concat())).unwrap();
    }
}

/// Sends a packet from an address, and returns the source address on arrival, or `None` if it does
/// not arrive.
fn arrives_from(sender: &Namespace, source: IpAddr, receiver: &Neighbour) -> Option<IpAddr> {
    let receiving = receiver.namespace.udp_socket(SocketAddr::new(receiver.address, 0)).unwrap();
    let sending = sender.udp_socket(SocketAddr::new(source, 0)).unwrap();
    // The first packets may be lost until neighbours are resolved.
    for _ in 0..10 {
        // An ICMP error for an earlier packet is reported by the next call.
        let _ = sending.send_to(b"packet", receiving.local_addr().unwrap());
        if let Some((from, _)) = next_datagram(&receiving, Duration::from_millis(100)).unwrap() {
            return Some(from.ip());
        }
    }
    None
}

fn sent(sender: &Neighbour, receiver: &Neighbour) -> Option<IpAddr> {
    arrives_from(&sender.namespace, sender.address, receiver)
}

#[test]
fn refused_forwarding_is_made_to_pass() {
    in_worlds(|world, family| {
        world.refuse();
        assert_eq!(sent(&world.container, &world.far), None, "{family}");
        for mode in [Mode::Iptables, Mode::Nftables] {
            world.ensure(rules(mode));
            let source = Some(world.container.address);
            assert_eq!(sent(&world.container, &world.far), source, "{family}, {mode:?}");
            let source = Some(world.outsider.address);
            assert_eq!(sent(&world.outsider, &world.container), source, "{family}, {mode:?}");
            world.ensure(Rules { forward: false, masquerade: None, ..rules(mode) });
        }
        assert_eq!(sent(&world.container, &world.far), None, "{family}");
    });
}

#[test]
fn only_packets_leaving_overlay_are_masqueraded() {
    in_worlds(|world, family| {
        let World { host, container, far, outsider } = world;
        for mode in [Mode::Iptables, Mode::Nftables] {
            let what = format!("{family}, {mode:?}");
            world.ensure(rules(mode));
            assert_eq!(sent(container, outsider), Some(outsider.gateway), "{what}");
            assert_eq!(sent(far, outsider), Some(outsider.gateway), "{what}");
            assert_eq!(sent(container, far), Some(container.address), "{what}");
            assert_eq!(sent(far, container), Some(far.address), "{what}");
            // A client keeps its address on the way to a local container, but not into the overlay.
            assert_eq!(sent(outsider, container), Some(outsider.address), "{what}");
            assert_eq!(sent(outsider, far), Some(far.gateway), "{what}");
            // The host as a client in the overlay.
            assert_eq!(arrives_from(host, outsider.gateway, far), Some(far.gateway), "{what}");

            world.ensure(Rules { masquerade: None, ..rules(mode) });
            assert_eq!(sent(container, outsider), Some(container.address), "{what}");
        }
    });
}

#[test]
fn repair_loses_no_packet() {
    in_worlds(|world, family| {
        world.refuse();
        for (mode, damage) in [
            (
                Mode::Iptables,
                "iptables -A FORWARD -j FLANNEL-FWD\nip6tables -A FLANNEL-FWD -p tcp -j ACCEPT",
            ),
            (
                Mode::Nftables,
                "nft add rule ip flannel-ipv4 forward tcp dport 80 accept
                 iptables -A FLANNEL-FWD -p tcp -j ACCEPT
                 ip6tables-legacy -A FORWARD -j FLANNEL-FWD",
            ),
        ] {
            world.ensure(rules(mode));
            assert!(sent(&world.container, &world.far).is_some());
            let pings = world
                .container
                .namespace
                .ping_stream_every(Duration::from_millis(2), world.far.address)
                .unwrap();
            let repairs = world.host.enter(|| {
                let mut firewall = Firewall::new(rules(mode));
                for _ in 0..25 {
                    sh(damage);
                    assert!(!firewall.ensure().unwrap().is_empty());
                }
            });
            repairs.unwrap();
            pings.wait_answers(1).unwrap();
            let pings = pings.finish().unwrap();
            let whole = pings.answered > 100 && pings.lost.is_empty();
            assert!(whole, "{family}, {mode:?}: {pings:?}");
        }
    });
}
