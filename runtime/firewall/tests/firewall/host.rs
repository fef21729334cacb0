//! A test host: an empty network namespace, and the rules that other software installs.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use heddle_firewall::{FamilyRules, Firewall, Masquerade, Mode, Rules};
use heddle_requires::requires;
use nix::sched::{CloneFlags, unshare};

/// Runs a test in a new network namespace, with iptables of both flavours and nftables.
pub(crate) fn on_a_host(test: impl FnOnce() + Send + 'static) {
    requires!(
        Namespaces,
        Program("iptables"),
        Program("iptables-legacy"),
        Program("iptables-nft"),
        Program("nft"),
    );
    on_a_bare_host(test);
}

/// Runs a test in a new network namespace. It needs no program.
pub(crate) fn on_a_bare_host(test: impl FnOnce() + Send + 'static) {
    requires!(Namespaces);
    let host = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        test();
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs shell commands, one per line. All of them have to succeed.
pub(crate) fn sh(commands: &str) -> String {
    with_input("sh -e", commands)
}

/// Runs a program with the given input.
pub(crate) fn with_input(command: &str, input: &str) -> String {
    let mut words = command.split_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}\n{input}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The rules of a dual-stack network with all options enabled.
pub(crate) fn rules(mode: Mode) -> Rules {
    let family = |network: &str, subnet: &str| FamilyRules {
        network: network.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
    };
    Rules {
        network_name: "/coreos.com/network".into(),
        families: [
            family("10.244.0.0/16", "10.244.8.0/24"),
            family("2001:cafe:42::/56", "2001:cafe:42:8::/64"),
        ]
        .into(),
        masquerade: Some(Masquerade { random_fully: true }),
        forward: true,
        mode,
    }
}

/// The rules of another network, beside the first.
pub(crate) fn other_rules(mode: Mode) -> Rules {
    let family = FamilyRules {
        network: "10.99.0.0/16".parse().unwrap(),
        subnet: "10.99.3.0/24".parse().unwrap(),
    };
    Rules { network_name: "/blue".into(), families: [family].into(), ..rules(mode) }
}

/// Repairs the rules, and asserts that a second check finds nothing more to do.
pub(crate) fn ensure(firewall: &mut Firewall) -> Vec<String> {
    let lines = firewall.ensure().unwrap();
    assert_eq!(firewall.ensure().unwrap(), [""; 0], "after {lines:?}");
    lines
}

/// Returns the output of a program, without the comments of `iptables-save`, counters and other
/// lines that are not rules.
pub(crate) fn listed(command: &str) -> Vec<String> {
    let printed = with_input(command, "");
    let mut lines: Vec<String> = Vec::new();
    for line in printed.lines().filter(|line| !line.starts_with('#')) {
        lines.push(line.split(" [").next().unwrap().to_owned());
    }
    lines
}

/// Returns the rules that `iptables-save`, or a similar command, prints.
pub(crate) fn saved(command: &str) -> Vec<String> {
    listed(command).into_iter().filter(|line| line.starts_with("-A")).collect()
}
