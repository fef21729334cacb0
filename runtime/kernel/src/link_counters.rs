//! Traffic counters of devices, from `/proc/net/dev`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use heddle_core::address::LinkName;
use heddle_core::link_counters::LinkCounters;

use crate::error::KernelError;

/// The kernel's file for the network namespace of the reading thread.
const FILE: &str = "/proc/thread-self/net/dev";

/// Returns the counters of all devices of the thread's network namespace.
///
/// # Errors
///
/// [`KernelError::LinkCounters`] if `/proc` is not mounted.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
pub fn link_counters() -> Result<BTreeMap<LinkName, LinkCounters>, KernelError> {
    let text = fs::read_to_string(FILE);
    let text =
        text.map_err(|source| KernelError::LinkCounters { path: Path::new(FILE), source })?;
    Ok(parse(&text))
}

/// Parses the file: one device per line, eight numbers for each direction (`dev_seq_printf_stats`,
/// `net/core/net-procfs.c`).
fn parse(text: &str) -> BTreeMap<LinkName, LinkCounters> {
    let device = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let [received, sent] = [numbers.get(..4)?, numbers.get(8..12)?];
        let counters = LinkCounters {
            rx_bytes: received[0],
            rx_packets: received[1],
            rx_errors: received[2],
            rx_dropped: received[3],
            tx_bytes: sent[0],
            tx_packets: sent[1],
            tx_errors: sent[2],
            tx_dropped: sent[3],
        };
        Some((name.trim().parse().ok()?, counters))
    };
    text.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_directions_are_parsed() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16
flannel.1: 18446744073709551615 0 0 0 0 0 0 0 5 6 7 8 0 0 0 0
";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        let lo = found[&"lo".parse().unwrap()];
        assert_eq!((lo.rx_bytes, lo.rx_packets, lo.rx_errors, lo.rx_dropped), (1, 2, 3, 4));
        assert_eq!((lo.tx_bytes, lo.tx_packets, lo.tx_errors, lo.tx_dropped), (9, 10, 11, 12));
        assert_eq!(found[&"flannel.1".parse().unwrap()].rx_bytes, u64::MAX);
    }

    #[test]
    fn counters_include_the_loopback_device() {
        assert!(link_counters().unwrap().contains_key(&"lo".parse().unwrap()));
    }
}
