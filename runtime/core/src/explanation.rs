//! Explains the choice of the external interface.
//!
//! [`interface::select`](crate::interface::select) makes the choice. This module names, for each
//! interface, the flag or the fact about the host that decided.

use std::net::IpAddr;

use crate::address::{Family, LinkName};
use crate::interface::{Facts, Interface, Selection, by_name, by_pattern, choose};

/// The verdict on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The interface.
    pub interface: LinkName,
    /// True if the interface was chosen. If it was and the host still cannot join, the interface
    /// lacks an address.
    pub chosen: bool,
    /// The flag or the route that decided for or against it.
    pub reason: String,
}

/// Explains the choice of [`select`](crate::interface::select) for each interface, in the order of
/// the facts.
pub fn explain(families: &[Family], selection: &Selection, facts: &Facts) -> Vec<Verdict> {
    let chosen = choose(families, selection, facts).ok().map(|choice| choice.interface.name);
    let rules = rules(selection);
    let verdict = |interface: &Interface| {
        let name = interface.name;
        let reason = if !rules.is_empty() {
            by_rules(interface, &rules, chosen, families, facts)
        } else if let Some(target) = selection.can_reach {
            by_route(name, target, facts)
        } else if let Some((flag, owner)) = owner_of_public_address(selection, facts) {
            if owner == name {
                format!("it has the address of {flag}")
            } else {
                format!("the address of {flag} is on {owner}")
            }
        } else {
            by_default_route(name, families, facts)
        };
        Verdict { interface: name, chosen: chosen == Some(name), reason }
    };
    facts.interfaces.iter().map(verdict).collect()
}

/// One `--iface` or `--iface-regex`.
enum Rule<'a> {
    Name(&'a str),
    Pattern(&'a regex::Regex),
}

impl Rule<'_> {
    /// Returns the interface that this rule selects.
    fn takes(&self, families: &[Family], facts: &Facts) -> Option<LinkName> {
        let choice = match self {
            Self::Name(name) => by_name(name, facts),
            Self::Pattern(pattern) => by_pattern(pattern, families, facts),
        };
        choice.map(|choice| choice.interface.name)
    }

    /// Returns true if this rule would select the interface were it the only one.
    fn matches(&self, interface: &Interface, families: &[Family]) -> bool {
        let alone = Facts { interfaces: vec![interface.clone()], ..Facts::default() };
        self.takes(families, &alone).is_some()
    }

    fn flag(&self) -> String {
        match self {
            Self::Name(name) => format!("--iface {name}"),
            Self::Pattern(pattern) => format!("--iface-regex {pattern}"),
        }
    }
}

/// Returns the rules in the order in which they are tried.
fn rules(selection: &Selection) -> Vec<Rule<'_>> {
    let names = selection.names.iter().map(|name| Rule::Name(name));
    names.chain(selection.patterns.iter().map(Rule::Pattern)).collect()
}

fn by_rules(
    interface: &Interface,
    rules: &[Rule],
    chosen: Option<LinkName>,
    families: &[Family],
    facts: &Facts,
) -> String {
    let Some(rule) = rules.iter().find(|rule| rule.matches(interface, families)) else {
        return "no --iface or --iface-regex matches it".to_owned();
    };
    let matched = format!("{} matches it", rule.flag());
    let lacking = families.iter().find(|family| interface.address(**family).is_none());
    match (rule.takes(families, facts), lacking) {
        (_, Some(family)) => format!("{matched}, but it has no {family} address of global scope"),
        _ if chosen == Some(interface.name) => matched,
        (Some(first), _) if first != interface.name => format!("{matched}, and {first} before it"),
        _ => {
            let winner = rules.iter().find(|rule| rule.takes(families, facts) == chosen);
            let winner = winner.map_or_else(String::new, Rule::flag);
            format!("{matched}, but {winner} comes first")
        }
    }
}

fn by_route(name: LinkName, target: IpAddr, facts: &Facts) -> String {
    match facts.route_to {
        None => format!("there is no route to {target} (--iface-can-reach)"),
        Some((link, _)) if link == name => {
            format!("{target} is reached through it (--iface-can-reach)")
        }
        Some((link, _)) => format!("{target} is reached through {link} (--iface-can-reach)"),
    }
}

/// Returns the flag whose address is one of the host's own, and the interface with that address.
fn owner_of_public_address(selection: &Selection, facts: &Facts) -> Option<(String, LinkName)> {
    let v4 = selection.public_ip.map(|address| ("--public-ip", IpAddr::V4(address)));
    let v6 = selection.public_ipv6.map(|address| ("--public-ipv6", IpAddr::V6(address)));
    [v4, v6].into_iter().flatten().find_map(|(flag, address)| {
        let choice = by_name(&address.to_string(), facts)?;
        Some((format!("{flag} {address}"), choice.interface.name))
    })
}

fn by_default_route(name: LinkName, families: &[Family], facts: &Facts) -> String {
    let about = |family: &Family| {
        let routes = facts.default_routes(*family);
        match routes.first() {
            None => format!("there is no {family} default route"),
            Some(best) if *best == name => format!("the {family} default route goes through it"),
            Some(best) if routes.contains(&name) => {
                format!("the {family} default route through {best} has a lower metric")
            }
            Some(best) => format!("the {family} default route goes through {best}"),
        }
    };
    families.iter().map(about).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    const V4: &[Family] = &[Family::V4];
    const BOTH: &[Family] = &[Family::V4, Family::V6];

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        Interface {
            name: name.parse().unwrap(),
            mtu: 1500,
            up: true,
            loopback: false,
            kind: String::new(),
            mac: None,
            local: None,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn facts() -> Facts {
        Facts {
            interfaces: vec![
                interface("eth0", &["192.168.0.72/24", "fd00::72/64"]),
                interface("eth1", &["10.9.0.1/16"]),
                interface("wlan0", &["10.8.0.1/16", "fd08::1/64"]),
            ],
            default_routes_v4: vec!["eth0".parse().unwrap(), "wlan0".parse().unwrap()],
            default_routes_v6: vec!["wlan0".parse().unwrap()],
            route_to: None,
        }
    }

    /// Returns the chosen interface and the reason of each of the three.
    fn explained(
        families: &[Family],
        selection: &Selection,
        facts: &Facts,
    ) -> (Option<String>, Vec<String>) {
        let verdicts = explain(families, selection, facts);
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
}
