use regex::Regex;

use super::*;
use crate::interface::tests::interface;

const V4: &[Family] = &[Family::V4];
const BOTH: &[Family] = &[Family::V4, Family::V6];

fn facts() -> Facts {
    Facts {
        interfaces: vec![
            interface("eth0", &["192.168.0.72/24", "fd00::72/64"]),
            interface("eth1", &["10.9.0.1/16"]),
            interface("wlan0", &["10.8.0.1/16", "fd08::1/64"]),
        ],
        default_routes_v4: vec!["eth0".parse().unwrap(), "wlan0".parse().unwrap()],
        default_routes_v6: vec!["wlan0".parse().unwrap()],
        ..Facts::default()
    }
}

/// Returns the chosen interface and the reason of each of the three.
fn explained(
    families: &[Family],
    selection: &Selection,
    facts: &Facts,
) -> (Option<String>, Vec<String>) {
    let verdicts = explain(&Requirements::families_only(families), selection, facts);
    let chosen = verdicts.iter().find(|verdict| verdict.chosen);
    let chosen = chosen.map(|verdict| verdict.interface.to_string());
    (chosen, verdicts.into_iter().map(|verdict| verdict.reason).collect())
}

fn flags(names: &[&str], patterns: &[&str]) -> Selection {
    Selection {
        names: names.iter().map(ToString::to_string).collect(),
        patterns: patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect(),
        ..Selection::default()
    }
}

#[test]
fn default_route_decides_without_flags() {
    let (chosen, reasons) = explained(V4, &Selection::default(), &facts());
    assert_eq!(chosen.as_deref(), Some("eth0"));
    assert_eq!(
        reasons,
        [
            "the IPv4 default route goes through it",
            "the IPv4 default route goes through eth0",
            "the IPv4 default route through eth0 has a lower metric",
        ]
    );
    let (chosen, reasons) = explained(BOTH, &Selection::default(), &facts());
    assert_eq!(chosen, None);
    assert_eq!(
        reasons[0],
        "the IPv4 default route goes through it, the IPv6 default route goes through wlan0"
    );
}

#[test]
fn first_flag_with_address_of_each_family_decides() {
    let (chosen, reasons) = explained(BOTH, &flags(&["eth1"], &["^wlan", "0$"]), &facts());
    assert_eq!(chosen.as_deref(), Some("wlan0"));
    assert_eq!(
        reasons,
        [
            "--iface-regex 0$ matches it, but --iface-regex ^wlan comes first",
            "--iface eth1 matches it, but it has no IPv6 address of global scope",
            "--iface-regex ^wlan matches it",
        ]
    );
    let (chosen, reasons) = explained(V4, &flags(&[], &["^eth"]), &facts());
    assert_eq!(chosen.as_deref(), Some("eth0"));
    assert_eq!(reasons[1], "--iface-regex ^eth matches it, and eth0 before it");
    assert_eq!(reasons[2], "no --iface or --iface-regex matches it");
}

#[test]
fn can_reach_address_decides_by_its_route() {
    let target = Some("203.0.113.9".parse().unwrap());
    let selection = Selection { can_reach: target, ..Selection::default() };
    let (chosen, reasons) = explained(V4, &selection, &facts());
    assert_eq!(chosen, None);
    assert_eq!(reasons[0], "there is no route to 203.0.113.9 (--iface-can-reach)");
    let facts = Facts { route_to: Some(("eth1".parse().unwrap(), None)), ..facts() };
    let (chosen, reasons) = explained(V4, &selection, &facts);
    assert_eq!(chosen.as_deref(), Some("eth1"));
    assert_eq!(reasons[0], "203.0.113.9 is reached through eth1 (--iface-can-reach)");
    assert_eq!(reasons[1], "203.0.113.9 is reached through it (--iface-can-reach)");
}

#[test]
fn public_ip_of_the_host_decides_and_foreign_one_does_not() {
    let public = |address: &str| Selection {
        public_ip: Some(address.parse().unwrap()),
        ..Selection::default()
    };
    let (chosen, reasons) = explained(V4, &public("10.9.0.1"), &facts());
    assert_eq!(chosen.as_deref(), Some("eth1"));
    assert_eq!(reasons[0], "the address of --public-ip 10.9.0.1 is on eth1");
    assert_eq!(reasons[1], "it has the address of --public-ip 10.9.0.1");
    let (chosen, reasons) = explained(V4, &public("203.0.113.1"), &facts());
    assert_eq!(chosen.as_deref(), Some("eth0"));
    assert_eq!(reasons[0], "the IPv4 default route goes through it");
}
