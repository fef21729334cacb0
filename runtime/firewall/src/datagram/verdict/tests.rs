//! Tests with rulesets that `nft` and `iptables-save` printed, and with single rules.

use serde_json::Value;

use super::*;
use crate::datagram::condition::Direction;

/// Printed by nft 1.0.6 for the chains that firewalld 1.3 creates for its zone `public`.
const FIREWALLD: &str = include_str!("../recorded/firewalld.json");
/// Printed by nft 1.0.6 for rules with sets, maps, ranges and connection states.
const MANY: &str = include_str!("../recorded/many.json");
/// Printed by iptables 1.8.9 for the main chains of ufw.
const UFW: &str = include_str!("../recorded/ufw.save");

fn datagrams(direction: Direction, own: &str, peer: &str) -> Datagrams {
    Datagrams {
        direction,
        own: own.parse().unwrap(),
        peer: Some(peer.parse().unwrap()),
        port: 8472,
        one_port: false,
        link: Some("eth0".parse().unwrap()),
        master: None,
    }
}

fn incoming() -> Datagrams {
    datagrams(Direction::In, "192.168.77.2", "192.168.77.3")
}

fn outgoing() -> Datagrams {
    Datagrams { direction: Direction::Out, ..incoming() }
}

fn objects(listing: &str) -> Vec<Value> {
    let mut listing: Value = serde_json::from_str(listing).unwrap();
    serde_json::from_value(listing["nftables"].take()).unwrap()
}

fn listed(objects: &[Value], datagrams: &Datagrams) -> DatagramVerdict {
    let mut filters = Filters::default();
    filters.add_listed(objects, datagrams.family());
    filters.verdict(datagrams)
}

fn saved(printed: &str, datagrams: &Datagrams) -> DatagramVerdict {
    let mut filters = Filters::default();
    filters.add_saved(&Ruleset::parse(printed).unwrap(), Flavour::Nft);
    filters.verdict(datagrams)
}

/// Returns the verdict of a chain INPUT with these rules.
fn input(policy: &str, rules: &[&str], datagrams: &Datagrams) -> DatagramVerdict {
    let rules: String = rules.iter().map(|rule| format!("-A {rule}\n")).collect();
    let saved_rules = format!("*filter\n:INPUT {policy} [0:0]\n:OTHER - [0:0]\n{rules}COMMIT\n");
    saved(&saved_rules, datagrams)
}

/// Returns the cause of a drop, in short: `policy`, `2 of OTHER`, or the verdict.
fn cause(verdict: &DatagramVerdict) -> String {
    match verdict {
        DatagramVerdict::Accepted => "accepted".to_owned(),
        DatagramVerdict::Unknown => "unknown".to_owned(),
        DatagramVerdict::Dropped(drops) => match &drops[0].cause {
            DropCause::Policy => "policy".to_owned(),
            DropCause::Rule { number, .. } => format!("{number} of {}", drops[0].chain),
        },
    }
}

/// Returns the listing of MANY with only these rules in the chain `input`, by handle, and without
/// the chain that exempts datagrams from connection tracking.
fn many(handles: &[u64]) -> Vec<Value> {
    let mut objects = objects(MANY);
    objects.retain(|object| match &object["rule"] {
        Value::Null => true,
        rule if rule["chain"] == "raw" => false,
        rule if rule["chain"] == "input" => handles.iter().any(|handle| rule["handle"] == *handle),
        _ => true,
    });
    objects
}

#[test]
fn zone_of_firewalld_rejects_the_port_in_both_families() {
    let objects = objects(FIREWALLD);
    let v6 = datagrams(Direction::In, "2001:db8::2", "2001:db8::3");
    for incoming in [incoming(), v6.clone()] {
        let verdict = listed(&objects, &incoming);
        let DatagramVerdict::Dropped(drops) = &verdict else { panic!("{verdict:?}") };
        assert_eq!(drops.len(), 1);
        assert_eq!(
            drops[0].to_string(),
            "nftables: rule 7 (handle 38) of chain filter_IN_public in table inet firewalld"
        );
        assert_eq!(drops[0].base, "filter_INPUT");
        assert_eq!(drops[0].manager, Some(Manager::Firewalld));
    }
    assert_eq!(listed(&objects, &outgoing()), DatagramVerdict::Accepted);
    let out = Datagrams { direction: Direction::Out, ..v6 };
    assert_eq!(listed(&objects, &out), DatagramVerdict::Accepted);
    // The zone `trusted` accepts all that arrives on eth1.
    let trusted = Datagrams { link: Some("eth1".parse().unwrap()), ..incoming() };
    assert_eq!(listed(&objects, &trusted), DatagramVerdict::Accepted);
    let unknown = Datagrams { link: None, ..incoming() };
    assert_eq!(listed(&objects, &unknown), DatagramVerdict::Unknown);
}

#[test]
fn datagrams_from_one_port_may_belong_to_answers() {
    let one_port = Datagrams { one_port: true, ..incoming() };
    assert_eq!(listed(&objects(FIREWALLD), &one_port), DatagramVerdict::Unknown);
    let accepting = "INPUT -m conntrack --ctstate RELATED,ESTABLISHED,NEW -j ACCEPT";
    assert_eq!(cause(&input("DROP", &[accepting], &one_port)), "accepted");
    assert_eq!(cause(&input("DROP", &[], &one_port)), "policy");
}

#[test]
fn policy_of_ufw_drops_what_its_chains_leave() {
    let verdict = saved(UFW, &incoming());
    let DatagramVerdict::Dropped(drops) = &verdict else { panic!("{verdict:?}") };
    assert_eq!(drops[0].to_string(), "iptables-nft: the policy of chain INPUT in table filter");
    assert_eq!(drops[0].manager, Some(Manager::Ufw));
    assert_eq!(saved(UFW, &outgoing()), DatagramVerdict::Accepted);
    let allowed = UFW.replace(
        "-A ufw-user-input",
        "-A ufw-user-input -p udp -m udp --dport 8472 -j ACCEPT\n-A ufw-user-input",
    );
    assert_eq!(saved(&allowed, &incoming()), DatagramVerdict::Accepted);
}

#[test]
fn iptables_conditions_are_evaluated() {
    for (rule, expected) in [
        ("-p udp -m udp --dport 8472 -j ACCEPT", "accepted"),
        ("-p 17 --dport 8000:9000 -j ACCEPT", "accepted"),
        ("-p udp -m multiport --dports 53,8472 -j ACCEPT", "accepted"),
        ("-p udp -m multiport --dports 53,67:68 -j ACCEPT", "policy"),
        ("-p udp -m multiport --ports 53,8472 -j ACCEPT", "unknown"),
        ("-p udp -m udp --sport 53 -j ACCEPT", "policy"),
        ("-p udp -m udp --sport 1024:65535 -j ACCEPT", "accepted"),
        ("-p udp -m udp ! --dport 53 -j ACCEPT", "accepted"),
        ("-p tcp -m tcp --dport 8472 -j ACCEPT", "policy"),
        ("! -p tcp -j ACCEPT", "accepted"),
        ("-i eth0 -j ACCEPT", "accepted"),
        ("-i eth+ -j ACCEPT", "accepted"),
        ("-i lo -j ACCEPT", "policy"),
        ("! -i lo -j ACCEPT", "accepted"),
        ("-s 192.168.77.0/24 -j ACCEPT", "accepted"),
        ("-s 192.168.77.9/32 -j ACCEPT", "policy"),
        ("! -s 192.168.77.9/32 -j ACCEPT", "accepted"),
        ("-s 10.0.0.0/255.0.255.0 -j ACCEPT", "unknown"),
        ("-d 192.168.77.2/32 -j ACCEPT", "accepted"),
        ("-m state --state NEW -j ACCEPT", "accepted"),
        ("-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT", "policy"),
        ("-m conntrack ! --ctstate INVALID -j ACCEPT", "accepted"),
        ("-m addrtype --dst-type LOCAL -j ACCEPT", "accepted"),
        ("-m addrtype --dst-type BROADCAST -j ACCEPT", "policy"),
        ("-m pkttype --pkt-type multicast -j ACCEPT", "policy"),
        ("-m limit --limit 3/min -j ACCEPT", "unknown"),
        ("-m mark --mark 0x1 -j ACCEPT", "unknown"),
        ("-m set --match-set trusted src -j ACCEPT", "unknown"),
        ("-p tcp -m set --match-set trusted src -j ACCEPT", "policy"),
        ("-m comment --comment \"-j ACCEPT\" -j LOG --log-prefix \"-j ACCEPT\"", "policy"),
        ("-p udp -j NFQUEUE --queue-num 1", "unknown"),
        ("-p udp -j MARK --set-xmark 0x1/0x1", "policy"),
        ("-p udp -j REJECT --reject-with icmp-port-unreachable", "1 of INPUT"),
        ("-j OTHER", "policy"),
    ] {
        let verdict = input("DROP", &[&format!("INPUT {rule}")], &incoming());
        assert_eq!(cause(&verdict), expected, "{rule}");
    }
}

#[test]
fn rule_that_may_drop_is_no_drop() {
    let limited = "INPUT -m limit --limit 3/min -j DROP";
    assert_eq!(cause(&input("ACCEPT", &[limited], &incoming())), "unknown");
    // What it leaves, the next one drops.
    assert_eq!(cause(&input("ACCEPT", &[limited, "INPUT -j DROP"], &incoming())), "2 of INPUT");
    assert_eq!(cause(&input("DROP", &[limited], &incoming())), "policy");
}

#[test]
fn jump_returns_to_datagrams_and_goto_does_not() {
    let accept = "INPUT -j ACCEPT";
    for (call, other, expected) in [
        ("INPUT -j OTHER", "OTHER -j RETURN", "accepted"),
        ("INPUT -g OTHER", "OTHER -j RETURN", "policy"),
        ("INPUT -j OTHER", "OTHER -j DROP", "1 of OTHER"),
        ("INPUT -j OTHER", "OTHER -m mark --mark 0x1 -j RETURN", "accepted"),
        ("INPUT -g OTHER", "OTHER -m mark --mark 0x1 -j ACCEPT", "unknown"),
    ] {
        assert_eq!(cause(&input("DROP", &[call, accept, other], &incoming())), expected, "{other}");
    }
}

#[test]
fn nftables_conditions_are_evaluated() {
    for (handle, expected) in [
        (9, "policy"),
        (11, "policy"),
        (12, "policy"),
        (13, "policy"),
        (14, "accepted"),
        (15, "policy"),
        (16, "1 of input"),
        (18, "policy"),
        (19, "unknown"),
        (20, "unknown"),
        (21, "accepted"),
        (23, "policy"),
        (25, "policy"),
        (26, "policy"),
        (27, "unknown"),
        (28, "policy"),
        (29, "policy"),
        (30, "accepted"),
        (31, "accepted"),
        (32, "policy"),
        (33, "accepted"),
        (34, "accepted"),
        (35, "accepted"),
        (36, "policy"),
        (37, "accepted"),
        (38, "unknown"),
        (41, "accepted"),
        (43, "policy"),
        (44, "policy"),
    ] {
        let rule = many(&[handle]);
        let text = rule.iter().find(|object| object["rule"]["chain"] == "input");
        assert_eq!(cause(&listed(&rule, &incoming())), expected, "{text:?}");
    }
}

#[test]
fn concatenation_is_looked_up_in_its_set() {
    for (peer, expected) in [("10.0.0.1", "accepted"), ("10.0.0.2", "policy")] {
        let incoming = datagrams(Direction::In, "10.0.0.9", peer);
        assert_eq!(cause(&listed(&many(&[15]), &incoming)), expected, "{peer}");
    }
}

#[test]
fn untracked_datagrams_may_not_be_new() {
    let mut objects = many(&[31]);
    let raw = |object: &&Value| object["rule"]["chain"] == "raw";
    let all = super::tests::objects(MANY);
    objects.extend(all.iter().filter(raw).cloned());
    assert_eq!(cause(&listed(&objects, &incoming())), "accepted");
    let new = r#"{"nftables":[{"rule":{"family":"inet","table":"filter","chain":"input","handle":99,
        "expr":[{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"new"}},{"accept":null}]}}]}"#;
    objects.retain(|object| object["rule"]["chain"] != "input");
    objects.extend(super::tests::objects(new));
    assert_eq!(cause(&listed(&objects, &incoming())), "unknown");
}

#[test]
fn device_that_belongs_to_another_may_be_named_by_it() {
    let master = Datagrams { master: Some("vrf0".parse().unwrap()), ..incoming() };
    assert_eq!(cause(&input("DROP", &["INPUT -i vrf0 -j ACCEPT"], &master)), "unknown");
    assert_eq!(cause(&input("DROP", &["INPUT -i vrf1 -j ACCEPT"], &master)), "policy");
}

#[test]
fn any_peer_is_in_every_network_perhaps() {
    let any = Datagrams { peer: None, ..incoming() };
    assert_eq!(cause(&input("DROP", &["INPUT -s 10.0.0.0/8 -j ACCEPT"], &any)), "unknown");
    assert_eq!(cause(&input("DROP", &["INPUT -s 127.0.0.0/8 -j ACCEPT"], &any)), "policy");
    assert_eq!(cause(&input("ACCEPT", &["INPUT -s 0.0.0.0/0 -j DROP"], &any)), "1 of INPUT");
}

#[test]
fn every_table_and_chain_at_a_hook_counts() {
    let raw = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -j DROP\nCOMMIT\n";
    let verdict = saved(&format!("{raw}{UFW}"), &incoming());
    let DatagramVerdict::Dropped(drops) = verdict else { panic!("{verdict:?}") };
    let named: Vec<_> = drops.iter().map(ToString::to_string).collect();
    assert_eq!(
        named,
        [
            "iptables-nft: rule 1 (`-p udp -j DROP`) of chain PREROUTING in table raw",
            "iptables-nft: the policy of chain INPUT in table filter"
        ]
    );
}
