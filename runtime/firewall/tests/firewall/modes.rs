//! Switches between iptables and nftables, and between the flavours of iptables.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use heddle_firewall::{Firewall, Mode, Rules};
use heddle_requires::requires;

use crate::host::{ensure, listed, on_a_bare_host, on_a_host, other_rules, rules, sh};

/// Returns all output of any program that names chains or tables of ours.
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
fn mode_change_removes_rules_of_other_mode() {
    on_a_host(|| {
        ensure(&mut Firewall::new(rules(Mode::Iptables)));
        ensure(&mut Firewall::new(other_rules(Mode::Iptables)));
        let lines = ensure(&mut Firewall::new(rules(Mode::Nftables)));
        assert!(
            lines.iter().any(|line| line.contains("FLANNEL-FWD was left over; removed")),
            "{lines:?}"
        );
        // The rules of the other network remain.
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
fn stale_rules_in_other_flavour_are_removed() {
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
fn unused_legacy_flavour_is_not_loaded() {
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

/// Makes `iptables` and `ip6tables` in a directory this flavour, as Debian's alternatives do.
fn choose(flavour: &str, directory: &Path) {
    for command in ["iptables", "ip6tables"] {
        for tool in ["", "-save", "-restore"] {
            let program = Path::new("/usr/sbin").join(format!("{command}-{flavour}{tool}"));
            let link = directory.join(format!("{command}{tool}"));
            let _ = fs::remove_file(&link);
            symlink(program, link).unwrap();
        }
    }
}

/// The variable with a directory that is already first in `PATH`, for the tests that replace
/// `iptables` in it.
const FIRST: &str = "HEDDLE_TEST_FIRST";

/// Runs tests of this binary again, with this directory first in `PATH`.
fn run_again(tests: &[&str], directory: &Path) {
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(tests)
        .env("PATH", format!("{}:{path}", directory.display()))
        .env(FIRST, directory)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {printed}", directory.display());
    assert!(!printed.contains("running 0 tests"), "{printed}");
}

/// Runs the tests that depend on `iptables` again, with each flavour in turn.
#[test]
fn either_iptables_flavour_works() {
    on_a_host(|| {
        for flavour in ["nft", "legacy"] {
            let directory = tempfile::tempdir().unwrap();
            choose(flavour, directory.path());
            let tests = ["iptables::", "unbroken::iptables", "refusals::docker"];
            run_again(&tests, directory.path());
        }
    });
}

#[test]
fn rules_follow_flavour_change() {
    // Said here as well, because nobody sees what the other process prints.
    requires!(Namespaces, Program("iptables-legacy"), Program("iptables-nft"), Program("nft"));
    let directory = tempfile::tempdir().unwrap();
    choose("nft", directory.path());
    run_again(&["--ignored", "modes::changing_host"], directory.path());
}

#[test]
#[ignore = "takes a PATH that begins with a directory to change, which another test gives it"]
fn changing_host() {
    on_a_host(|| {
        let directory = std::env::var(FIRST).expect("run by another test");
        let mut firewall = Firewall::new(rules(Mode::Iptables));
        for flavour in ["nft", "legacy", "nft"] {
            choose(flavour, Path::new(&directory));
            ensure(&mut firewall);
            let found = traces();
            assert_eq!(found.len(), 4, "{flavour}: {found:?}");
            assert!(found.iter().all(|line| line.contains(flavour)), "{flavour}: {found:?}");
        }
    });
}

#[test]
fn missing_tools_fail_masquerading_only() {
    requires!(Namespaces);
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
    on_a_bare_host(|| {
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
