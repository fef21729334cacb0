//! Network partitions between two hosts.

use std::net::IpAddr;
use std::process::Command;

use heddle_lab::Host;

/// Name of the nftables table that drops the packets.
const TABLE: &str = "partition";

/// Effect on the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// They are dropped silently.
    Silent,
    /// TCP is reset, so that each call fails immediately; other packets pass.
    Refused,
}

/// Blocks packets between a host and an address, until [`heal`].
pub fn cut(host: &Host, address: IpAddr, loss: Loss) {
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    let verdict = match loss {
        Loss::Silent => "drop",
        Loss::Refused => "meta l4proto tcp reject with tcp reset",
    };
    let chain = |hook: &str, side: &str| {
        format!(
            "add chain inet {TABLE} {hook} {{ type filter hook {hook} priority 0; }}; \
             add rule inet {TABLE} {hook} {family} {side} {address} {verdict}; "
        )
    };
    let rules = chain("input", "saddr") + &chain("output", "daddr");
    nft(host, &format!("add table inet {TABLE}; {rules}"));
}

/// Ends the partition.
pub fn heal(host: &Host) {
    nft(host, &format!("delete table inet {TABLE}"));
}

fn nft(host: &Host, commands: &str) {
    let mut command = Command::new("nft");
    command.arg(commands);
    host.namespace().run(command).unwrap();
}
