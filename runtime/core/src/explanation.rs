//! Explains the choice of the external interface.
//!
//! [`interface::select`](crate::interface::select) makes the choice. This module names, for each
//! interface, the flag or the fact about the host that decided.

use std::net::IpAddr;

use crate::address::{Family, LinkName};
use crate::interface::{Facts, Interface, Requirements, Rule, Selection, by_name, choose, rules};
use crate::text::list;

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
pub fn explain(requirements: &Requirements, selection: &Selection, facts: &Facts) -> Vec<Verdict> {
    let families = requirements.families();
    let usable = requirements.usable(facts);
    let chosen = choose(families, selection, &usable).ok().map(|choice| choice.interface.name);
    let rules = rules(selection);
    let verdict = |found: &Interface| {
        let name = found.name;
        let interface = usable.interfaces.iter().find(|usable| usable.name == name);
        let facts = &usable;
        let reason = if let Some(overlaid) = requirements.overlaid(found, facts) {
            format!("never used: {overlaid}")
        } else if !rules.is_empty() {
            by_rules(interface.unwrap_or(found), &rules, chosen, families, facts)
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
    list(families.iter().map(about))
}

#[cfg(test)]
mod tests;
