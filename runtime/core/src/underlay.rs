//! Detects changes of the interface that carries the overlay.
//!
//! Plans are based on the underlay at the start of the daemon. The daemon does not adapt to
//! changes: a restart sees the new state. So this module only decides whether this run still has
//! what it needs, and if not, whether a restart would be better off.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::address::{Family, LinkName};
use crate::interface::{Interface, SelectionError};
use crate::node::Underlay;

/// The state of the underlay, compared with that at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
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
        let own = |public: &IpAddr| {
            let has = underlay.addresses.iter().any(|network| network.addr() == *public);
            if has {
                return Some(*public);
            }
            let mut others = underlay.addresses.iter().map(IpNet::addr);
            others.find(|other| Family::of(*other) == Family::of(*public))
        };
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
pub fn standing(
    started_with: &Underlay,
    interfaces: &[Interface],
    chosen_now: &Result<Underlay, SelectionError>,
) -> Standing {
    let needed = Reach::of(started_with);
    let lacking = match interfaces.iter().find(|found| found.name == needed.link) {
        None => format!("interface {} is gone", needed.link),
        // An interface that was set down is expected to be set up again. Meanwhile its IPv6
        // addresses are gone, which is no reason to choose another one.
        Some(found) if !found.up => {
            return Standing::Missing(format!("interface {} is down", needed.link));
        }
        Some(found) => {
            let has = |address: &IpAddr| found.addresses.iter().any(|own| own.addr() == *address);
            match needed.addresses.iter().find(|address| !has(address)) {
                None => return Standing::Intact,
                Some(address) => format!("interface {} has lost {address}", needed.link),
            }
        }
    };
    match chosen_now {
        Ok(chosen) if Reach::of(chosen) != needed => Standing::Elsewhere {
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
        Ok(_) => Standing::Intact,
        Err(error) => Standing::Missing(format!("{lacking}: {error}")),
    }
}

/// Returns the interface's MTU in bytes, if it differs from that at the start. Devices, and files
/// that others have read by now, have the MTU of the start; a restart uses the new one.
pub fn other_mtu(started_with: &Underlay, interfaces: &[Interface]) -> Option<u32> {
    let found = interfaces.iter().find(|found| found.name == started_with.link)?;
    Some(found.mtu).filter(|mtu| *mtu != started_with.mtu)
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
mod tests {
    use super::*;
    use crate::interface::{Facts, Selection, select};

    fn interface(name: &str, up: bool, addresses: &[&str]) -> Interface {
        Interface {
            name: name.parse().unwrap(),
            mtu: 1500,
            up,
            loopback: false,
            kind: String::new(),
            mac: None,
            local: None,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    /// Returns facts with the default route on the last interface that is up, if there is one.
    fn facts(interfaces: Vec<Interface>) -> Facts {
        let up = interfaces.iter().rev().find(|found| found.up);
        let routes: Vec<_> = up.map(|found| found.name).into_iter().collect();
        Facts {
            interfaces,
            default_routes_v4: routes.clone(),
            default_routes_v6: routes,
            route_to: None,
        }
    }

    /// Returns the standing with these interfaces after a start with `before`.
    fn compare(before: Interface, now: Vec<Interface>, selection: &Selection) -> Standing {
        let families: Vec<_> = [Family::V4, Family::V6]
            .into_iter()
            .filter(|family| before.address(*family).is_some())
            .collect();
        let started_with = select(&families, selection, &facts(vec![before])).unwrap();
        let now = facts(now);
        standing(&started_with, &now.interfaces, &select(&families, selection, &now))
    }

    const V4: [&str; 1] = ["192.168.0.2/24"];

    fn check(now: Vec<Interface>, expected: Standing) {
        let standing = compare(interface("eth0", true, &V4), now, &Selection::default());
        assert_eq!(standing, expected);
    }

    #[test]
    fn underlay_unchanged_is_intact_despite_other_interfaces() {
        check(vec![interface("eth0", true, &V4)], Standing::Intact);
        check(
            vec![
                interface("eth0", true, &["192.168.0.9/24", "192.168.0.2/16", "fd00::9/64"]),
                // The other interface has the default route now.
                interface("eth1", true, &["10.0.0.1/8"]),
            ],
            Standing::Intact,
        );
    }

    #[test]
    fn interface_down_is_missing_even_if_there_is_another() {
        let down = || Standing::Missing("interface eth0 is down".into());
        check(vec![interface("eth0", false, &V4)], down());
        let eth1 = || interface("eth1", true, &["10.0.0.1/8", "fd01::1/64"]);
        check(vec![interface("eth0", false, &V4), eth1()], down());
        let standing = compare(
            interface("eth0", true, &["fd00::2/64"]),
            vec![interface("eth0", false, &[]), eth1()],
            &Selection::default(),
        );
        assert_eq!(standing, down());
    }

    #[test]
    fn underlay_lost_without_alternative_is_missing() {
        let missing = |text: &str| Standing::Missing(text.into());
        check(
            vec![interface("eth0", true, &[])],
            missing(
                "interface eth0 has lost 192.168.0.2: interface eth0 has no IPv4 address of global \
                 scope; the network config enables IPv4",
            ),
        );
        check(
            vec![],
            missing(
                "interface eth0 is gone: no IPv4 default route selects an interface; name one with \
                 --iface",
            ),
        );
        let selection = Selection { names: vec!["192.168.0.2".into()], ..Selection::default() };
        let renumbered = interface("eth0", true, &["192.168.0.9/24"]);
        let standing = compare(interface("eth0", true, &V4), vec![renumbered], &selection);
        let expected = "interface eth0 has lost 192.168.0.2: no interface matches --iface 192.168.0.2; \
                        there are eth0 (192.168.0.9)";
        assert_eq!(standing, missing(expected));
    }

    #[test]
    fn changed_address_or_name_is_elsewhere() {
        let elsewhere = |lacking: &str, next: &str, readdressed| Standing::Elsewhere {
            reason: format!(
                "interface eth0 {lacking}: this daemon was started with eth0 with 192.168.0.2, \
                 and the next one would use {next}"
            ),
            readdressed,
        };
        check(
            vec![interface("eth0", true, &["192.168.0.9/24"])],
            elsewhere("has lost 192.168.0.2", "eth0 with 192.168.0.9", true),
        );
        check(
            vec![interface("lan0", true, &V4)],
            elsewhere("is gone", "lan0 with 192.168.0.2", false),
        );
    }

    #[test]
    fn changed_mtu_is_reported_and_underlay_stays_intact() {
        let selection = Selection::default();
        let before = || interface("eth0", true, &V4);
        let started_with = select(&[Family::V4], &selection, &facts(vec![before()])).unwrap();
        let narrow = Interface { mtu: 1400, ..before() };
        assert_eq!(other_mtu(&started_with, &[interface("eth1", true, &[]), before()]), None);
        assert_eq!(other_mtu(&started_with, &[]), None);
        assert_eq!(other_mtu(&started_with, std::slice::from_ref(&narrow)), Some(1400));
        assert_eq!(compare(before(), vec![narrow], &selection), Standing::Intact);
    }

    #[test]
    fn own_interface_address_counts_behind_nat() {
        let public_ip = Some("203.0.113.7".parse().unwrap());
        let selection = Selection { public_ip, ..Selection::default() };
        let before = || interface("eth0", true, &V4);
        assert_eq!(compare(before(), vec![before()], &selection), Standing::Intact);
        let renumbered = vec![interface("eth0", true, &["192.168.0.9/24"])];
        let standing = compare(before(), renumbered, &selection);
        assert!(matches!(standing, Standing::Elsewhere { readdressed: false, .. }), "{standing:?}");
    }

    #[test]
    fn underlay_losing_an_address_of_either_family_is_elsewhere() {
        let both = ["192.168.0.2/24", "fd00::2/64"];
        let standing = compare(
            interface("eth0", true, &both),
            vec![interface("eth0", true, &["192.168.0.2/24", "fd00::9/64"])],
            &Selection::default(),
        );
        let expected = "interface eth0 has lost fd00::2: this daemon was started with eth0 with \
                        192.168.0.2 and fd00::2, and the next one would use eth0 with 192.168.0.2 and fd00::9";
        assert_eq!(standing, Standing::Elsewhere { reason: expected.into(), readdressed: false });
    }

    #[test]
    fn absence_interrupted_starts_anew() {
        let start = Instant::now();
        let mut absence = Absence::default();
        assert!(!absence.is_for_good(start));
        assert!(!absence.is_for_good(start + SETTLED - Duration::from_millis(1)));
        absence.over();
        assert!(!absence.is_for_good(start + SETTLED));
        assert!(!absence.is_for_good(start + 2 * SETTLED - Duration::from_millis(1)));
        assert!(absence.is_for_good(start + 2 * SETTLED));
    }
}
