//! Verdicts on datagrams, compared with the fate of real ones.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use heddle_firewall::{DatagramVerdict, Datagrams, Direction, datagram_verdicts};
use heddle_lab::{Namespace, next_datagram, wait_until};
use heddle_requires::requires;

use crate::host::sh;

const PORT: u16 = 8472;

/// Two hosts, of which the first has rules.
struct Pair {
    namespaces: [Namespace; 2],
}

impl Pair {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = |role| {
            let name = format!("hdl-dg-{}-{number}-{role}", std::process::id());
            let namespace = Namespace::create(name).unwrap();
            namespace.set_sysctl("ipv6/conf/default/dad_transmits", "0").unwrap();
            namespace
        };
        let namespaces = [namespace("host"), namespace("peer")];
        let peer = namespaces[1].name();
        namespaces[0].ip(&format!("link add eth0 type veth peer name eth0 netns {peer}")).unwrap();
        for (namespace, v4, v6) in [
            (&namespaces[0], "192.0.2.1", "2001:db8::1"),
            (&namespaces[1], "192.0.2.2", "2001:db8::2"),
        ] {
            namespace.ip(&format!("address add {v4}/24 dev eth0")).unwrap();
            namespace.ip(&format!("address add {v6}/64 dev eth0 nodad")).unwrap();
            namespace.ip("link set eth0 up").unwrap();
        }
        let pair = Self { namespaces };
        for datagrams in all() {
            let passing = || pair.arrive(&datagrams).then_some(()).ok_or("none passed");
            wait_until("datagrams passing", Duration::from_secs(10), passing).unwrap();
        }
        pair
    }

    /// Returns true if a datagram arrives.
    fn arrive(&self, datagrams: &Datagrams) -> bool {
        let Datagrams { own, peer, direction, .. } = *datagrams;
        let (from, to, destination) = match direction {
            Direction::In => (&self.namespaces[1], &self.namespaces[0], own),
            Direction::Out => (&self.namespaces[0], &self.namespaces[1], peer.unwrap()),
        };
        let any: IpAddr = if own.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let receiving = to.udp_socket(SocketAddr::new(destination, PORT)).unwrap();
        let sending = from.udp_socket(SocketAddr::new(any, 0)).unwrap();
        (0..3).any(|_| {
            // A rule in the chain OUTPUT makes sending fail.
            let _ = sending.send_to(b"datagram", SocketAddr::new(destination, PORT));
            next_datagram(&receiving, Duration::from_millis(100)).unwrap().is_some()
        })
    }
}

/// Returns the datagrams of both directions in both families.
fn all() -> Vec<Datagrams> {
    let mut all = Vec::new();
    for (own, peer) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        for direction in [Direction::In, Direction::Out] {
            all.push(Datagrams {
                direction,
                own: own.parse().unwrap(),
                peer: Some(peer.parse().unwrap()),
                port: PORT,
                one_port: false,
                link: Some("eth0".parse().unwrap()),
                master: None,
            });
        }
    }
    all
}

/// Rules, and their effect on datagrams of IPv4 in, IPv4 out, IPv6 in, IPv6 out: `a` for accepted,
/// `d` for dropped, `?` for unknown.
const RULES: [(&str, &str); 17] = [
    ("true", "aaaa"),
    ("iptables-legacy -P INPUT DROP", "daaa"),
    ("iptables-nft -P INPUT DROP\nip6tables-nft -P OUTPUT DROP", "daad"),
    ("ip6tables-legacy -A INPUT -p udp -m udp --dport 8472 -j REJECT", "aada"),
    ("iptables-nft -I OUTPUT -p udp --dport 8472 -j REJECT", "adaa"),
    ("iptables-nft -t raw -A PREROUTING -p udp --dport 8472 -j DROP", "daaa"),
    ("iptables-legacy -t mangle -A POSTROUTING -o eth0 -d 192.0.2.0/24 -j DROP", "adaa"),
    (
        "iptables-nft -P INPUT DROP\niptables-nft -A INPUT -i eth+ -m state --state NEW -j ACCEPT",
        "aaaa",
    ),
    (
        "iptables-nft -P INPUT DROP\niptables-nft -A INPUT -m state --state ESTABLISHED -j ACCEPT",
        "daaa",
    ),
    ("iptables-nft -P INPUT DROP\niptables-nft -A INPUT -m limit --limit 99/s -j ACCEPT", "?aaa"),
    (
        "iptables-nft -P INPUT DROP\niptables-nft -A INPUT -m addrtype --dst-type LOCAL -j ACCEPT",
        "aaaa",
    ),
    (
        "nft 'add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }'",
        "dada",
    ),
    (
        "nft 'add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }'\n\
         nft 'add rule inet t c udp dport { 53, 8000-9000 } ip saddr 192.0.2.0/24 accept'",
        "aada",
    ),
    (
        "nft 'add table inet t; add chain inet t c { type filter hook output priority 0; }'\n\
         nft 'add rule inet t c oifname \"eth0\" meta nfproto ipv6 reject'",
        "aaad",
    ),
    (
        "nft 'add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }'\n\
         nft 'add rule inet t c ct state vmap { established : accept, new : accept }'",
        "aaaa",
    ),
    (
        "nft 'add table inet t; add chain inet t c { type filter hook input priority 0; }'\n\
         nft 'add rule inet t c ip6 saddr != 2001:db8::2 drop'\n\
         nft 'add rule inet t c ip saddr != 192.0.2.9 drop'",
        "daaa",
    ),
    (
        "nft 'add table inet t; add chain inet t c { type filter hook prerouting priority -300; }'\n\
         nft 'add rule inet t c fib daddr type != local drop'\n\
         nft 'add rule inet t c iifname != \"eth0\" drop'",
        "aaaa",
    ),
];

#[test]
fn verdicts_are_what_becomes_of_real_datagrams() {
    requires!(
        Namespaces,
        Program("ip"),
        Program("iptables-nft"),
        Program("iptables-legacy"),
        Program("nft"),
    );
    for (rules, expected) in RULES {
        let pair = Pair::new();
        pair.namespaces[0].enter(|| sh(rules)).unwrap();
        let verdicts = pair.namespaces[0].enter(|| datagram_verdicts(&all())).unwrap().unwrap();
        let letter = |verdict: &DatagramVerdict| match verdict {
            DatagramVerdict::Accepted => 'a',
            DatagramVerdict::Dropped(_) => 'd',
            DatagramVerdict::Unknown => '?',
        };
        assert_eq!(verdicts.iter().map(letter).collect::<String>(), expected, "{rules}");
        for (datagrams, verdict) in all().iter().zip(&verdicts) {
            if *verdict != DatagramVerdict::Unknown {
                let arrives = *verdict == DatagramVerdict::Accepted;
                assert_eq!(pair.arrive(datagrams), arrives, "{datagrams:?} with {rules}");
            }
        }
    }
}
