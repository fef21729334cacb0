use heddle_control::{Peer, PeerHealth};
use heddle_core::object::{FdbEntry, Route};
use heddle_firewall::DropCause;

use super::super::samples::*;
use super::*;

const OTHER: &str = "192.168.0.99";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Returns the plan of a peer that is reached through the VXLAN device.
fn through_device(destination: &str) -> Plan {
    let entry = FdbEntry {
        link: name("flannel.1"),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        destination: address(destination),
    };
    Plan { objects: vec![Object::FdbEntry(entry)] }
}

fn incoming(peer: Option<&str>) -> Datagrams {
    Datagrams {
        direction: Direction::In,
        own: address("192.168.0.72"),
        peer: peer.map(address),
        port: 8472,
        one_port: false,
        link: Some(name("eth0")),
        master: None,
    }
}

fn outgoing(peer: &str) -> Datagrams {
    Datagrams { direction: Direction::Out, ..incoming(Some(peer)) }
}

fn iptables(base: &str) -> DatagramDrop {
    DatagramDrop {
        filter: Filter::IptablesNft,
        family: Family::V4,
        table: "filter".into(),
        base: base.into(),
        chain: base.into(),
        cause: DropCause::Policy,
        manager: None,
    }
}

fn nftables(table: &str, base: &str, chain: &str) -> DatagramDrop {
    DatagramDrop {
        filter: Filter::Nftables,
        table: table.into(),
        base: base.into(),
        chain: chain.into(),
        cause: DropCause::Rule { number: 7, text: "38".into() },
        ..iptables("")
    }
}

fn found(datagrams: &[Datagrams], drop: &DatagramDrop) -> Finding {
    let verdicts = vec![DatagramVerdict::Dropped(vec![drop.clone()]); datagrams.len()];
    let mut found = check(datagrams, &verdicts, None);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn finding_names_chain_table_and_command_of_iptables() {
    let finding = found(&[incoming(Some(OTHER))], &iptables("INPUT"));
    assert_eq!(
        finding.problem,
        "iptables-nft: the policy of chain INPUT in table filter drops what 192.168.0.99 sends to UDP port 8472 of this host"
    );
    assert_eq!(
        finding.command.as_deref(),
        Some("iptables-nft -I INPUT -i eth0 -p udp --dport 8472 -j ACCEPT")
    );
    let legacy =
        DatagramDrop { filter: Filter::IptablesLegacy, table: "raw".into(), ..iptables("OUTPUT") };
    let finding = found(&[outgoing(OTHER)], &legacy);
    assert!(
        finding.problem.ends_with("drops what this host sends to UDP port 8472 of 192.168.0.99")
    );
    assert_eq!(
        finding.command.as_deref(),
        Some("iptables-legacy -t raw -I OUTPUT -o eth0 -p udp --dport 8472 -j ACCEPT")
    );
}

#[test]
fn finding_has_the_command_of_the_manager() {
    for (manager, drop, command) in [
        (
            Some(Manager::Firewalld),
            nftables("inet firewalld", "filter_INPUT", "filter_IN_public"),
            "firewall-cmd --permanent --zone=public --add-port=8472/udp && firewall-cmd --reload",
        ),
        (
            Some(Manager::Firewalld),
            nftables("inet firewalld", "filter_INPUT", "filter_INPUT"),
            "firewall-cmd --permanent --add-port=8472/udp && firewall-cmd --reload",
        ),
        (Some(Manager::Ufw), iptables("INPUT"), "ufw allow in on eth0 proto udp to any port 8472"),
        (
            None,
            nftables("inet guard", "input", "web"),
            "nft insert rule inet guard input iifname eth0 udp dport 8472 accept",
        ),
    ] {
        let finding = found(&[incoming(Some(OTHER))], &DatagramDrop { manager, ..drop });
        assert_eq!(finding.command.as_deref(), Some(command));
    }
    let named = found(&[incoming(None)], &nftables("inet guard", "input", "web")).problem;
    assert_eq!(
        named,
        "nftables: rule 7 (handle 38) of chain web in table inet guard drops what any IPv4 peer sends to UDP port 8472 of \
         this host"
    );
}

#[test]
fn peers_that_a_rule_concerns_are_one_finding() {
    let peers: Vec<_> = (1..=7).map(|number| format!("192.168.0.{number}")).collect();
    let datagrams: Vec<_> = peers.iter().map(|peer| incoming(Some(peer))).collect();
    let drop = iptables("INPUT");
    assert!(found(&datagrams, &drop).problem.contains("what each of the 7 IPv4 peers sends"));
    let mut verdicts = vec![DatagramVerdict::Dropped(vec![drop]); 6];
    verdicts.push(DatagramVerdict::Unknown);
    let problem = &check(&datagrams, &verdicts, None)[0].problem;
    assert!(problem.contains("each of 6 peers (192.168.0.1, "), "{problem}");
    assert!(problem.contains(" and 1 more) sends"), "{problem}");
}

#[test]
fn peer_that_answers_refutes_the_finding() {
    let drops = [DatagramVerdict::Dropped(vec![iptables("INPUT")])];
    let with = |reachable| {
        let health = Some(PeerHealth { reachable, ..PeerHealth::default() });
        let peer = Peer { public_addresses: vec![address(OTHER)], health, ..Peer::default() };
        let status = Status { peers: vec![peer], ..Status::default() };
        check(&[incoming(Some(OTHER))], &drops, Some(&status)).len()
    };
    assert_eq!((with(true), with(false)), (0, 1));
}

#[test]
fn accepting_and_unknown_verdicts_are_no_finding() {
    for verdict in [DatagramVerdict::Accepted, DatagramVerdict::Unknown] {
        assert_eq!(check(&[incoming(Some(OTHER))], &[verdict], None), []);
    }
}

#[test]
fn sockets_are_those_that_the_plan_receives_on() {
    let (plan, peers) = (vxlan_plan(1450), [peer()]);
    let found = sockets(&plan, &[through_device(OTHER)], &peers);
    let expected = Socket {
        own: address("192.168.0.72"),
        port: 8472,
        one_port: false,
        bound: true,
        peers: vec![address(OTHER)],
    };
    assert_eq!(found, std::slice::from_ref(&expected));
    // A peer with a direct route, and no peer at all.
    let direct = Plan { objects: vec![Object::Route(Route::last_resort(net("10.244.36.0/24")))] };
    assert_eq!(sockets(&plan, &[direct], &peers), []);
    assert_eq!(sockets(&plan, &[], &[]), [Socket { peers: vec![], ..expected.clone() }]);
    let tunnel = Socket { port: 8285, one_port: true, bound: false, ..expected };
    assert_eq!(sockets(&tunnel_plan(), &[Plan::default()], &peers), [tunnel]);
    assert_eq!(sockets(&empty_plan(), &[Plan::default()], &peers), []);
}

#[test]
fn datagrams_pass_the_underlay_or_an_unknown_device() {
    let path = Path { underlay: name("eth0"), master: None };
    let socket = &sockets(&vxlan_plan(1450), &[through_device(OTHER)], &[peer()])[0];
    let links = |socket: &Socket, way| {
        let found = datagrams(socket, path, &[way]);
        (found[0].link, found[1].link)
    };
    let (eth0, eth1) = (Some(name("eth0")), Some(name("eth1")));
    assert_eq!(links(socket, eth0), (eth0, eth0));
    assert_eq!(links(socket, eth1), (None, eth0));
    let tunnel = &sockets(&tunnel_plan(), &[Plan::default()], &[peer()])[0];
    assert_eq!(links(tunnel, eth1), (None, eth1));
    let any = Socket { peers: vec![], ..socket.clone() };
    assert_eq!(
        datagrams(&any, path, &[]),
        [incoming(None), Datagrams { direction: Direction::Out, ..incoming(None) }]
    );
}
