//! Signals that are not meant to stop the daemon.

use std::process::Command;

use heddle_lab::{Families, Signal};
use heddle_tests::{Cluster, SOON};

/// Numbers and names of signals whose default action ends a process, and that have no meaning for
/// the daemon (signal(7)).
const UNUSED: [(u32, &str); 11] = [
    (10, "SIGUSR1"),
    (12, "SIGUSR2"),
    (14, "SIGALRM"),
    (16, "SIGSTKFLT"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
    (35, "SIGRTMIN+1"),
    (64, "SIGRTMIN+30"),
];

/// Returns the signals that a process handles, as a bit mask; signal 1 is the lowest bit.
fn handled(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
    u64::from_str_radix(line.unwrap(), 16).unwrap()
}

#[test]
fn unused_signal_is_logged_and_ignored() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let pid = node.daemon().pid();
    for (number, name) in UNUSED {
        heddle_lab::run(Command::new("kill").args([format!("-{number}"), pid.to_string()]))
            .unwrap();
        let expected = format!("{name}: has no meaning for heddled; ignored");
        node.daemon().wait_log(&[&expected], SOON).unwrap();
        node.daemon().check_running().unwrap();
    }
    let log = node.daemon().log();
    for (_, name) in UNUSED {
        assert_eq!(log.matches(&format!("{name}: ")).count(), 1, "{log}");
    }
    // Handled, not ignored, because child processes inherit ignored signals. Rust ignores SIGPIPE,
    // and restores it for children.
    let handled = handled(pid);
    for number in (1..=64).filter(|number| ![9, 13, 19, 32, 33].contains(number)) {
        let ends = ![3, 4, 5, 6, 8, 17, 18, 20, 21, 22, 23, 24, 28, 31].contains(&number);
        assert!(!ends || handled & (1 << (number - 1)) != 0, "signal {number} ends the daemon");
    }
    assert_eq!(node.daemon().health("/readyz").unwrap().0, 200);
    assert_eq!(node.stop(Signal::TERM), Some(0));
}
