//! Rules in iptables, in the flavour of the installed `iptables`.

use heddle_firewall::{Firewall, Masquerade, Mode, Rules};

use crate::host::{ensure, listed, on_a_host, other_rules, rules, saved, sh};

const FORWARD: [&str; 3] = [
    "-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD",
    "-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT",
    "-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT",
];

const MASQUERADE: [&str; 7] = [
    "-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG",
    "-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN",
    "-A FLANNEL-POSTRTG -s 10.244.8.0/24 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN",
    "-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.8.0/24 -m comment --comment \"flanneld masq\" -j RETURN",
    "-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.8.0/24 -m comment --comment \"flanneld masq\" -j RETURN",
    "-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully",
    "-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully",
];

fn firewall() -> Firewall {
    Firewall::new(rules(Mode::Iptables))
}

fn filter() -> Vec<String> {
    saved("iptables-save -t filter")
}

fn nat() -> Vec<String> {
    saved("iptables-save -t nat")
}

#[test]
fn iptables_rules_equal_flannels() {
    on_a_host(|| {
        ensure(&mut firewall());
        assert_eq!(filter(), FORWARD);
        assert_eq!(nat(), MASQUERADE);
    });
}

#[test]
fn ipv6_rules_equal_ipv4_with_own_addresses() {
    on_a_host(|| {
        ensure(&mut firewall());
        let as_ipv6 = |line: &str| {
            line.replace("10.244.0.0/16", "2001:cafe:42::/56")
                .replace("10.244.8.0/24", "2001:cafe:42:8::/64")
                .replace("224.0.0.0/4", "ff00::/8")
        };
        assert_eq!(saved("ip6tables-save -t filter"), FORWARD.map(as_ipv6));
        assert_eq!(saved("ip6tables-save -t nat"), MASQUERADE.map(as_ipv6));
    });
}

#[test]
fn repairs_are_reported_one_per_line() {
    on_a_host(|| {
        let lines = ensure(&mut firewall());
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].ends_with(": nat FLANNEL-POSTRTG was missing; repaired"), "{lines:?}");
    });
}

#[test]
fn damaged_rules_are_repaired() {
    on_a_host(|| {
        sh(
            "iptables -A FORWARD -i eth9 -j DROP\niptables -t nat -A POSTROUTING -o eth9 -j MASQUERADE",
        );
        let mut firewall = firewall();
        ensure(&mut firewall);
        let (good_filter, good_nat) = (filter(), nat());
        let forward = "-m comment --comment 'flanneld forward'";
        for (damage, found) in [
            ("iptables -F FLANNEL-FWD".into(), "filter FLANNEL-FWD had other rules"),
            (
                "iptables -D FORWARD 2\niptables -F FLANNEL-FWD\niptables -X FLANNEL-FWD".into(),
                "filter FLANNEL-FWD was missing",
            ),
            ("iptables -D FORWARD 2".into(), "filter FORWARD did not jump to FLANNEL-FWD"),
            ("iptables -D FLANNEL-FWD 1".into(), "filter FLANNEL-FWD had other rules"),
            (
                format!(
                    "iptables -D FLANNEL-FWD 1\niptables -A FLANNEL-FWD -s 10.244.0.0/16 {forward} -j ACCEPT"
                ),
                "filter FLANNEL-FWD had other rules",
            ),
            ("iptables -I FLANNEL-FWD -p tcp -j DROP".into(), "filter FLANNEL-FWD had other rules"),
            (
                format!("iptables -A FORWARD {forward} -j FLANNEL-FWD"),
                "filter FORWARD jumped to FLANNEL-FWD 2 times",
            ),
            (
                format!(
                    "iptables -I FORWARD {forward} -j FLANNEL-FWD\niptables -I FORWARD -j FLANNEL-FWD"
                ),
                "filter FORWARD jumped to FLANNEL-FWD 3 times",
            ),
            ("iptables -t nat -D FLANNEL-POSTRTG 5".into(), "nat FLANNEL-POSTRTG had other rules"),
            (
                "iptables -t nat -D POSTROUTING 2".into(),
                "nat POSTROUTING did not jump to FLANNEL-POSTRTG",
            ),
        ] {
            sh(&damage);
            let lines = ensure(&mut firewall);
            assert_eq!((filter(), nat()), (good_filter.clone(), good_nat.clone()), "{damage}");
            assert_eq!(lines.len(), 1, "{damage}: {lines:?}");
            assert!(lines[0].contains(found), "{damage}: {lines:?}");
        }
    });
}

#[test]
fn flushed_rules_are_restored() {
    on_a_host(|| {
        let mut firewall = firewall();
        ensure(&mut firewall);
        for damage in ["iptables -F", "iptables -t nat -F", "iptables -F\niptables -X"] {
            sh(damage);
            assert!(!ensure(&mut firewall).is_empty());
            assert_eq!(filter(), FORWARD, "{damage}");
            assert_eq!(nat(), MASQUERADE, "{damage}");
        }
    });
}

#[test]
fn refuse_all_rule_stays_after_our_jump() {
    on_a_host(|| {
        sh("iptables -A FORWARD -i eth9 -j ACCEPT\niptables -A FORWARD -j REJECT");
        let mut firewall = firewall();
        ensure(&mut firewall);
        let position = |text: &str| filter().iter().position(|line| line.contains(text)).unwrap();
        assert!(position("eth9") < position("FORWARD -m comment"));
        assert!(position("FORWARD -m comment") < position("REJECT"));
        sh("iptables -I FORWARD -j DROP");
        let lines = ensure(&mut firewall);
        assert!(lines[0].contains("refused everything before its jump"), "{lines:?}");
        assert_eq!(position("FORWARD -m comment"), 0);
    });
}

#[test]
fn foreign_rules_are_left_alone() {
    on_a_host(|| {
        sh("iptables -N DOCKER-USER
            iptables -A FORWARD -j DOCKER-USER
            iptables -A DOCKER-USER -m comment --comment \"it's \\\"quoted\\\"\" -s 10.1.0.0/16 -j RETURN
            iptables -P FORWARD DROP
            iptables -t nat -A POSTROUTING -s 10.1.0.0/16 ! -o docker0 -j MASQUERADE");
        let before = listed("iptables-save");
        let mut firewall = firewall();
        ensure(&mut firewall);
        sh("iptables -F FLANNEL-FWD");
        ensure(&mut firewall);
        let mut after = listed("iptables-save");
        after.retain(|line| !line.contains("FLANNEL"));
        assert_eq!(after, before);
    });
}

#[test]
fn disabled_rules_are_removed() {
    on_a_host(|| {
        ensure(&mut firewall());
        let forward_only = Rules { masquerade: None, ..rules(Mode::Iptables) };
        let lines = ensure(&mut Firewall::new(forward_only.clone()));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(!listed("iptables-save").iter().any(|line| line.contains("POSTRTG")));
        assert_eq!(filter(), FORWARD);
        ensure(&mut Firewall::new(Rules { forward: false, ..forward_only }));
        for command in ["iptables-save", "ip6tables-save"] {
            assert!(!listed(command).iter().any(|line| line.contains("FLANNEL")), "{command}");
        }
    });
}

#[test]
fn family_removed_from_config_loses_its_rules() {
    on_a_host(|| {
        ensure(&mut firewall());
        let mut v4_only = rules(Mode::Iptables);
        v4_only.families.v6 = None;
        ensure(&mut Firewall::new(v4_only));
        assert_eq!(filter(), FORWARD);
        assert!(!listed("ip6tables-save").iter().any(|line| line.contains("FLANNEL")));
    });
}

#[test]
fn changed_subnet_replaces_previous_rules() {
    on_a_host(|| {
        ensure(&mut firewall());
        let mut moved = rules(Mode::Iptables);
        moved.families.v4.as_mut().unwrap().subnet = "10.244.9.0/24".parse().unwrap();
        ensure(&mut Firewall::new(moved));
        let expected = MASQUERADE.map(|line| line.replace("10.244.8.0/24", "10.244.9.0/24"));
        assert_eq!(nat(), expected);
    });
}

#[test]
fn random_ports_can_be_disabled() {
    on_a_host(|| {
        let masquerade = Some(Masquerade { random_fully: false });
        ensure(&mut Firewall::new(Rules { masquerade, ..rules(Mode::Iptables) }));
        assert_eq!(nat(), MASQUERADE.map(|line| line.replace(" --random-fully", "")));
    });
}

#[test]
fn two_networks_on_one_host_do_not_interfere() {
    on_a_host(|| {
        let (mut one, mut other) = (firewall(), Firewall::new(other_rules(Mode::Iptables)));
        ensure(&mut one);
        ensure(&mut other);
        assert_eq!(one.ensure().unwrap(), [""; 0]);
        let both = listed("iptables-save");
        sh("iptables -F\niptables -t nat -F");
        ensure(&mut one);
        ensure(&mut other);
        assert_eq!(one.ensure().unwrap(), [""; 0]);
        assert_eq!(listed("iptables-save"), both);
        let off = Rules { masquerade: None, forward: false, ..other_rules(Mode::Iptables) };
        ensure(&mut Firewall::new(off));
        assert_eq!(one.ensure().unwrap(), [""; 0]);
        assert_eq!(filter(), FORWARD);
    });
}

#[test]
fn unreadable_table_is_left_alone() {
    on_a_host(|| {
        let mut firewall = Firewall::new(rules(Mode::Iptables));
        ensure(&mut firewall);
        // iptables cannot express this rule: it then shows nothing of the table any more, but still
        // adds to it.
        sh(
            "iptables-nft -P FORWARD DROP\nnft add rule ip filter FORWARD ip saddr 192.0.2.9 quota 1 mbytes accept",
        );
        let chain = listed("nft list chain ip filter FORWARD");
        if listed("iptables --version").concat().contains("legacy") {
            assert!(
                firewall.ensure().unwrap()[0]
                    .contains("table filter has rules that iptables cannot read")
            );
            assert_eq!(firewall.ensure().unwrap(), [""; 0]);
        } else {
            for _ in 0..2 {
                let error = firewall.ensure().unwrap_err().to_string();
                assert!(error.starts_with("iptables-nft: table filter has rules"), "{error}");
            }
        }
        assert_eq!(listed("nft list chain ip filter FORWARD"), chain);
        sh("nft flush chain ip filter FORWARD");
        ensure(&mut firewall);
    });
}

#[test]
fn foreign_multiline_comment_is_tolerated() {
    on_a_host(|| {
        sh("iptables -A FORWARD -m comment --comment 'it is\n# \"so\"\n' -j ACCEPT");
        ensure(&mut Firewall::new(rules(Mode::Iptables)));
    });
}
