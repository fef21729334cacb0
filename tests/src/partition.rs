//! Packets that get lost between two hosts.

use std::net::IpAddr;
use std::process::Command;

use heddle_lab::Host;

/// The nftables table that loses them.
const TABLE: &str = "partition";

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nobody hears of it.
    Silent,
    /// The sender is told, if it is TCP: each call fails at once.
    Refused,
}

/// Loses all packets between a host and an address, until [`heal`].
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

/// Lets them through again.
pub fn heal(host: &Host) {
    nft(host, &format!("delete table inet {TABLE}"));
}

fn nft(host: &Host, commands: &str) {
    let mut command = Command::new("nft");
    command.arg(commands);
    host.namespace().run(command).unwrap();
}
