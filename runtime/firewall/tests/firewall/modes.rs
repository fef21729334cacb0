//! From one way of writing rules to another.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use heddle_firewall::{Firewall, Mode, Rules};

use crate::host::{ensure, listed, on_a_host, other_rules, rules, sh};

/// All that any program shows of chains and tables of ours.
fn traces() -> Vec<String> {
    let mut traces = Vec::new();
    for command in
        ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"]
    {
        let chains = listed(command).into_iter().filter(|line| line.starts_with(":FLANNEL"));
        traces.extend(chains.map(|chain| format!("{command} {chain}")));
    }
    traces.extend(listed("nft list tables").into_iter().filter(|line| line.contains("flannel")));
    traces
}

#[test]
fn each_mode_removes_what_the_other_left() {
    on_a_host(|| {
        ensure(&mut Firewall::new(rules(Mode::Iptables)));
        ensure(&mut Firewall::new(other_rules(Mode::Iptables)));
        let lines = ensure(&mut Firewall::new(rules(Mode::Nftables)));
        assert!(
            lines.iter().any(|line| line.contains("FLANNEL-FWD was left over; removed")),
            "{lines:?}"
        );
        // The other network's are still there.
        let found = traces();
        assert_eq!(found.len(), 4, "{found:?}");
        ensure(&mut Firewall::new(other_rules(Mode::Nftables)));
        let found = traces();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|line| line.starts_with("table")), "{found:?}");
        let lines = ensure(&mut Firewall::new(rules(Mode::Iptables)));
        assert!(
            lines.iter().any(|line| line.contains("flannel-ipv4 was left over; removed")),
            "{lines:?}"
        );
    });
}

#[test]
fn leftovers_of_the_other_flavour_are_removed() {
    on_a_host(|| {
        for flavour in ["nft", "legacy"] {
            sh(&format!(
                "iptables-{flavour} -t nat -N FLANNEL-POSTRTG
                 iptables-{flavour} -t nat -A POSTROUTING -j FLANNEL-POSTRTG
                 ip6tables-{flavour} -N FLANNEL-FWD"
            ));
        }
        ensure(&mut Firewall::new(rules(Mode::Nftables)));
        let found = traces();
        assert_eq!(found, ["table ip flannel-ipv4", "table ip6 flannel-ipv6"]);
    });
}

#[test]
fn the_legacy_flavour_is_not_woken_without_need() {
    on_a_host(|| {
        for mode in [Mode::Nftables, Mode::Iptables] {
            let own_is_legacy =
                mode == Mode::Iptables && listed("iptables --version").concat().contains("legacy");
            ensure(&mut Firewall::new(rules(mode)));
            let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names");
            assert_eq!(tables.is_ok_and(|tables| !tables.is_empty()), own_is_legacy);
        }
    });
}

/// Runs the tests that depend on it again, with `iptables` being one flavour and then the other.
#[test]
fn iptables_may_be_of_either_flavour() {
    on_a_host(|| {
        for flavour in ["nft", "legacy"] {
            let directory = tempfile::tempdir().unwrap();
            for command in ["iptables", "ip6tables"] {
                for tool in ["", "-save", "-restore"] {
                    let program = Path::new("/usr/sbin").join(format!("{command}-{flavour}{tool}"));
                    symlink(program, directory.path().join(format!("{command}{tool}"))).unwrap();
                }
            }
            let path = std::env::var("PATH").unwrap();
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["iptables::", "unbroken::iptables", "refusals::docker"])
                .env("PATH", format!("{}:{path}", directory.path().display()))
                .output()
                .unwrap();
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{flavour}: {printed}");
            assert!(!printed.contains("running 0 tests"), "{printed}");
        }
    });
}

#[test]
fn where_nothing_is_installed_only_masquerading_is_missed() {
    let nothing = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "modes::bare_host"])
        .env("PATH", nothing.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("running 1 test"), "{printed}");
}

#[test]
#[ignore = "takes a PATH without any program, which another test gives it"]
fn bare_host() {
    on_a_host(|| {
        for (mode, program) in [(Mode::Iptables, "iptables"), (Mode::Nftables, "nft")] {
            let error = Firewall::new(rules(mode)).ensure().unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot run `{program}`")), "{error}");
            let mut firewall = Firewall::new(Rules { masquerade: None, ..rules(mode) });
            let lines = firewall.ensure().unwrap();
            assert!(lines[0].contains(&format!("cannot run `{program}`")), "{lines:?}");
            assert_eq!(firewall.ensure().unwrap(), [""; 0]);
            let none = Rules { masquerade: None, forward: false, ..rules(mode) };
            assert_eq!(Firewall::new(none).ensure().unwrap(), [""; 0]);
        }
    });
}
