//! Detects changes of the interface that carries the overlay.
//!
//! Plans are based on the underlay at the start of the daemon. The daemon does not adapt to
//! changes: a restart sees the new state. So this module only decides whether this run still has
//! what it needs, and if not, whether a restart would be better off.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::address::{Family, LinkName};
use crate::interface::{Facts, Interface, SelectionError, narrowest};
use crate::node::Underlay;

/// The state of the underlay, compared with that at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnderlayState {
    /// The interface and the addresses of the start are still there.
    Intact,
    /// Something is missing, and a restart would find no interface either, so the daemon waits.
    Missing(String),
    /// Something is missing, and a restart would choose another interface or address.
    Elsewhere {
        /// The reason, and what a restart would choose.
        reason: String,
        /// True if other hosts would have to reach this one at other addresses.
        readdressed: bool,
    },
}

/// The identity of an underlay: an interface, and its own source addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reach {
    link: LinkName,
    addresses: Vec<IpAddr>,
}

impl Reach {
    /// Returns the reach of an underlay. Behind NAT, where the interface does not have the public
    /// address, the interface's first address of that family counts.
    fn of(underlay: &Underlay) -> Self {
        let own = |public: &IpAddr| underlay.own_address(*public);
        let addresses = underlay.public_addresses.iter().filter_map(own).collect();
        Self { link: underlay.link, addresses }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        write!(f, "{} with {}", self.link, addresses.join(" and "))
    }
}

/// Compares the underlay of the start with the current interfaces and, if something is missing,
/// with the choice of a restart.
pub fn underlay_state(
    started_with: &Underlay,
    interfaces: &[Interface],
    chosen_now: &Result<Underlay, SelectionError>,
) -> UnderlayState {
    let needed = Reach::of(started_with);
    let lacking = match interfaces.iter().find(|found| found.name == needed.link) {
        None => format!("interface {} is gone", needed.link),
        // An interface that was set down is expected to be set up again. Meanwhile its IPv6
        // addresses are gone, which is no reason to choose another one.
        Some(found) if !found.up => {
            return UnderlayState::Missing(format!("interface {} is down", needed.link));
        }
        Some(found) => {
            let has = |address: &IpAddr| found.addresses.iter().any(|own| own.addr() == *address);
            match needed.addresses.iter().find(|address| !has(address)) {
                None => return UnderlayState::Intact,
                Some(address) => format!("interface {} has lost {address}", needed.link),
            }
        }
    };
    match chosen_now {
        Ok(chosen) if Reach::of(chosen) != needed => UnderlayState::Elsewhere {
            reason: format!(
                "{lacking}: this daemon was started with {needed}, and the next one would use {}",
                Reach::of(chosen)
            ),
            // One address in common is enough for others to recognize the node.
            readdressed: !chosen
                .public_addresses
                .iter()
                .any(|address| started_with.public_addresses.contains(address)),
        },
        // Everything came back between the observation of the interfaces and the choice.
        Ok(_) => UnderlayState::Intact,
        Err(error) => UnderlayState::Missing(format!("{lacking}: {error}")),
    }
}

/// A device by which packets to other hosts leave, and its MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// The device: the interface itself, or the narrowest of those behind it.
    pub link: LinkName,
    /// MTU in bytes.
    pub mtu: u32,
}

/// Returns the MTU towards other hosts, if it differs from that at the start. Devices, and files
/// that others have read by now, have the MTU of the start; a restart uses the new one.
pub fn other_mtu(started_with: &Underlay, families: &[Family], facts: &Facts) -> Option<PathMtu> {
    let found = facts.interfaces.iter().find(|found| found.name == started_with.link)?;
    let (link, mtu) = narrowest(found, families, facts)?;
    (mtu != started_with.mtu).then_some(PathMtu { link, mtu })
}

/// Debounce period: how long the underlay must be elsewhere before that counts as permanent.
/// Network managers remove addresses and routes before they configure them anew, and a DHCP server
/// may take seconds to give them back.
pub const SETTLED: Duration = Duration::from_secs(10);

/// Debounces the underlay being elsewhere: tracks since when it has been, without interruption.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absence {
    since: Option<Instant>,
}

impl Absence {
    /// Records that the underlay is not elsewhere, or no longer.
    pub fn over(&mut self) {
        self.since = None;
    }

    /// Records that the underlay is elsewhere now. Returns true if it has been for [`SETTLED`].
    pub fn is_for_good(&mut self, now: Instant) -> bool {
        now - *self.since.get_or_insert(now) >= SETTLED
    }
}

#[cfg(test)]
mod tests;
