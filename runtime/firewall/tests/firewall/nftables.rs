//! Rules in tables of our own in nftables.

use heddle_firewall::{Firewall, Masquerade, Mode, Rules};

use crate::host::{ensure, listed, on_a_host, other_rules, rules, sh};

const TABLE: &str = "\
table ip flannel-ipv4 {
	chain postrtg {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return comment \"flanneld masq\"
		ip saddr 10.244.8.0/24 ip daddr 10.244.0.0/16 return comment \"flanneld masq\"
		ip saddr 10.244.0.0/16 ip daddr 10.244.8.0/24 return comment \"flanneld masq\"
		ip saddr != 10.244.0.0/16 ip daddr 10.244.8.0/24 return comment \"flanneld masq\"
		ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random comment \"flanneld masq\"
		ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random comment \"flanneld masq\"
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr 10.244.0.0/16 accept comment \"flanneld forward\"
		ip daddr 10.244.0.0/16 accept comment \"flanneld forward\"
	}
}";

fn firewall() -> Firewall {
    Firewall::new(rules(Mode::Nftables))
}

fn table(family_and_name: &str) -> String {
    listed(&format!("nft list table {family_and_name}")).join("\n")
}

#[test]
fn nftables_rules_equal_flannels() {
    on_a_host(|| {
        let lines = ensure(&mut firewall());
        assert_eq!(
            lines,
            [
                "nftables: table ip flannel-ipv4 was missing; repaired",
                "nftables: table ip6 flannel-ipv6 was missing; repaired"
            ]
        );
        assert_eq!(table("ip flannel-ipv4"), TABLE);
        let ipv6 = TABLE
            .replace("ip flannel-ipv4", "ip6 flannel-ipv6")
            .replace("ip saddr", "ip6 saddr")
            .replace("ip daddr", "ip6 daddr")
            .replace("10.244.0.0/16", "2001:cafe:42::/56")
            .replace("10.244.8.0/24", "2001:cafe:42:8::/64")
            .replace("224.0.0.0/4", "ff00::/8");
        assert_eq!(table("ip6 flannel-ipv6"), ipv6);
    });
}

#[test]
fn damaged_rules_are_repaired() {
    on_a_host(|| {
        let mut firewall = firewall();
        ensure(&mut firewall);
        for damage in [
            "nft flush ruleset",
            "nft delete table ip flannel-ipv4",
            "nft flush table ip flannel-ipv4",
            "nft flush chain ip flannel-ipv4 postrtg",
            "nft add rule ip flannel-ipv4 forward tcp dport 80 drop",
            "nft insert rule ip flannel-ipv4 postrtg counter",
            "nft add rule ip flannel-ipv4 forward ip daddr 10.244.0.0/16 accept comment '\"flanneld forward\"'",
            "nft add chain ip flannel-ipv4 other",
            "nft add set ip flannel-ipv4 other '{ type ipv4_addr; }'",
            "nft add chain ip flannel-ipv4 forward '{ policy drop; }'",
            "nft add table ip flannel-ipv4 '{ flags dormant; }'",
            "handle=$(nft -a list chain ip flannel-ipv4 forward | sed -n 's/.*saddr.*# handle //p')
             nft delete rule ip flannel-ipv4 forward handle $handle",
            "handle=$(nft -a list chain ip flannel-ipv4 forward | sed -n 's/.*saddr.*# handle //p')
             nft delete rule ip flannel-ipv4 forward handle $handle
             nft add rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept comment '\"flanneld forward\"'",
        ] {
            sh(damage);
            assert!(!ensure(&mut firewall).is_empty(), "{damage}");
            assert_eq!(table("ip flannel-ipv4"), TABLE, "{damage}");
        }
    });
}

#[test]
fn foreign_rules_are_left_alone() {
    on_a_host(|| {
        sh("nft add table inet filter
            nft add chain inet filter forward '{ type filter hook forward priority 0; policy drop; }'
            nft add table ip flannel
            iptables -P FORWARD ACCEPT");
        let before = listed("nft list ruleset");
        let mut firewall = firewall();
        ensure(&mut firewall);
        ensure(&mut Firewall::new(Rules {
            masquerade: None,
            forward: false,
            ..rules(Mode::Nftables)
        }));
        assert_eq!(listed("nft list ruleset"), before);
    });
}

#[test]
fn disabled_chains_do_not_exist() {
    on_a_host(|| {
        let mut masquerade_only = rules(Mode::Nftables);
        masquerade_only.forward = false;
        masquerade_only.masquerade = Some(Masquerade { random_fully: false });
        masquerade_only.families.v4 = None;
        ensure(&mut firewall());
        ensure(&mut Firewall::new(masquerade_only));
        let ruleset = listed("nft list ruleset").join("\n");
        for gone in ["flannel-ipv4", "chain forward", "fully-random"] {
            assert!(!ruleset.contains(gone), "{gone}: {ruleset}");
        }
        assert!(ruleset.contains("masquerade"), "{ruleset}");
    });
}

#[test]
fn flannel_tables_are_taken_over() {
    on_a_host(|| {
        sh("nft add table ip flannel-ipv4 '{ comment \"rules for flannel-ipv4\"; }'
            nft add chain ip flannel-ipv4 postrtg '{ type nat hook postrouting priority 100; }'
            nft add rule ip flannel-ipv4 postrtg ip saddr 10.244.7.0/24 ip daddr 10.244.0.0/16 return");
        ensure(&mut firewall());
        assert_eq!(table("ip flannel-ipv4"), TABLE);
    });
}

#[test]
fn two_networks_on_one_host_do_not_interfere() {
    on_a_host(|| {
        let (mut one, mut other) = (firewall(), Firewall::new(other_rules(Mode::Nftables)));
        ensure(&mut one);
        ensure(&mut other);
        assert_eq!(one.ensure().unwrap(), [""; 0]);
        let tables = listed("nft list tables");
        assert_eq!(tables.len(), 3, "{tables:?}");
        let off = Rules { masquerade: None, forward: false, ..other_rules(Mode::Nftables) };
        ensure(&mut Firewall::new(off));
        assert_eq!(one.ensure().unwrap(), [""; 0]);
        assert_eq!(listed("nft list tables").len(), 2);
    });
}
