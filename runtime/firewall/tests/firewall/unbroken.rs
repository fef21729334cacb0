//! Rules are never missing, however often they are repaired.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use heddle_firewall::{Firewall, Mode};
use heddle_lab::RaisedOnDrop;

use crate::host::{ensure, on_a_host, rules, sh, with_input};

/// Damages and repairs rules many times while another thread reads them. Every reading has to show
/// all of the rules.
fn repair_under_a_reader(mode: Mode, read: &'static str, damage: &'static str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    on_a_host(move || {
        let mut firewall = Firewall::new(rules(mode));
        ensure(&mut firewall);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut readings = 0;
                while !done.load(Ordering::Relaxed) {
                    let printed = with_input(read, "");
                    for line in &expected {
                        assert!(printed.contains(line), "without `{line}`:\n{printed}");
                    }
                    readings += 1;
                }
                readings
            });
            let over = RaisedOnDrop(&done);
            for _ in 0..50 {
                sh(damage);
                assert!(!firewall.ensure().unwrap().is_empty());
            }
            drop(over);
            let readings = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            assert!(readings >= 50, "only {readings} readings");
        });
    });
}

const FORWARD: [&str; 3] = [
    "-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD",
    "-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT",
    "-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT",
];

#[test]
fn iptables_rules_are_never_missing() {
    repair_under_a_reader(
        Mode::Iptables,
        "iptables-save -t filter",
        "iptables -A FLANNEL-FWD -p tcp -j ACCEPT
         iptables -A FORWARD -j FLANNEL-FWD",
        &FORWARD,
    );
}

#[test]
fn nftables_rules_are_never_missing() {
    repair_under_a_reader(
        Mode::Nftables,
        "nft list table ip flannel-ipv4",
        "nft add rule ip flannel-ipv4 forward tcp dport 80 accept",
        &[
            "type nat hook postrouting priority srcnat",
            "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade",
            "type filter hook forward priority filter",
            "ip saddr 10.244.0.0/16 accept",
            "ip daddr 10.244.0.0/16 accept",
        ],
    );
}
