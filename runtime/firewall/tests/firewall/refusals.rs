//! Foreign chains that refuse forwarded packets: overridden where possible, and reported elsewhere.

use heddle_core::address::Family;
use heddle_firewall::{Filter, Firewall, Mode, Refusal, Rules, forward_verdicts};
use ipnet::IpNet;

use crate::host::{ensure, listed, on_a_host, rules, saved, sh};

fn networks() -> Vec<IpNet> {
    rules(Mode::Iptables).families.iter().map(|family| family.network).collect()
}

fn refused_by() -> Vec<(Family, Filter)> {
    let refusals = forward_verdicts(&networks()).unwrap();
    refusals.iter().map(|refusal| (refusal.family, refusal.filter)).collect()
}

const COMMANDS: [&str; 4] =
    ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"];

#[test]
fn docker_policy_is_overridden_in_each_flavour_and_family() {
    for mode in [Mode::Iptables, Mode::Nftables] {
        // The refusal may be set up before or after our start.
        for early in [true, false] {
            on_a_host(move || {
                let mut firewall = Firewall::new(rules(mode));
                if !early {
                    ensure(&mut firewall);
                }
                for command in COMMANDS {
                    sh(&format!("{command} -P FORWARD DROP"));
                }
                let refused = refused_by();
                // In its own mode, iptables has the accept rules anyway.
                let unanswered = if mode == Mode::Iptables && !early { 2 } else { 4 };
                assert_eq!(refused.len(), unanswered, "{refused:?}");
                assert!(!ensure(&mut firewall).is_empty());
                assert_eq!(refused_by(), []);
                for command in COMMANDS {
                    let saved = saved(&format!("{command}-save"));
                    let filter = saved.iter().filter(|line| line.contains("FLANNEL-FWD")).count();
                    assert_eq!(filter, 3, "{mode:?}, {command}: {saved:?}");
                }
            });
        }
    }
}

#[test]
fn accept_rules_go_when_refusal_goes() {
    on_a_host(|| {
        let mut firewall = Firewall::new(rules(Mode::Nftables));
        sh("iptables-legacy -P FORWARD DROP\niptables-nft -A FORWARD -j REJECT");
        let lines = ensure(&mut firewall);
        assert_eq!(lines.len(), 4, "{lines:?}");
        sh("iptables-legacy -P FORWARD ACCEPT\niptables-nft -F FORWARD");
        ensure(&mut firewall);
        for command in COMMANDS {
            let left = listed(&format!("{command}-save"));
            assert!(!left.iter().any(|line| line.contains("FLANNEL")), "{command}: {left:?}");
        }
    });
}

#[test]
fn masquerade_is_in_one_place_only() {
    on_a_host(|| {
        sh("iptables-legacy -P FORWARD DROP\niptables-nft -P FORWARD DROP");
        ensure(&mut Firewall::new(rules(Mode::Nftables)));
        for command in COMMANDS {
            let saved = saved(&format!("{command}-save"));
            assert!(!saved.iter().any(|line| line.contains("POSTRTG")), "{command}: {saved:?}");
        }
    });
}

#[test]
fn forward_disabled_adds_no_accept_rules() {
    on_a_host(|| {
        sh("iptables-legacy -P FORWARD DROP\niptables-nft -P FORWARD DROP");
        ensure(&mut Firewall::new(Rules { forward: false, ..rules(Mode::Iptables) }));
        assert_eq!(
            refused_by(),
            [(Family::V4, Filter::IptablesNft), (Family::V4, Filter::IptablesLegacy)]
        );
    });
}

#[test]
fn foreign_refusing_table_is_reported() {
    on_a_host(|| {
        sh("nft add table inet firewalld
            nft add chain inet firewalld zones
            nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'
            nft add rule inet firewalld filter_FORWARD ct state established,related accept
            nft add rule inet firewalld filter_FORWARD jump zones
            nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
            nft add table ip own
            nft add chain ip own pass '{ type filter hook forward priority 0; policy drop; }'");
        ensure(&mut Firewall::new(rules(Mode::Nftables)));
        let refusals = forward_verdicts(&networks()).unwrap();
        let said: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "nftables: a rule of chain filter_FORWARD in table inet firewalld refuses IPv4 packets",
                "nftables: the policy of chain pass in table ip own refuses IPv4 packets",
                "nftables: a rule of chain filter_FORWARD in table inet firewalld refuses IPv6 packets",
            ]
        );
        assert_eq!(refusals[1].cause, Refusal::Policy);
        sh("nft add rule inet firewalld zones ip saddr 10.244.0.0/16 accept
            nft add rule inet firewalld zones ip daddr 10.0.0.0/8 accept
            nft add rule inet firewalld zones meta nfproto ipv6 accept
            nft add rule ip own pass accept");
        assert_eq!(refused_by(), []);
    });
}

#[test]
fn empty_host_refuses_nothing() {
    on_a_host(|| assert_eq!(forward_verdicts(&networks()).unwrap(), []));
}
