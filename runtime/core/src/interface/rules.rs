//! The flags `--iface` and `--iface-regex`, and the flag or route that selects the overlay itself.

use std::net::IpAddr;

use regex::Regex;

use super::{
    Choice, Facts, Interface, Requirements, Selection, SelectionError, by_name, by_pattern,
};
use crate::address::{Family, LinkName};

/// One `--iface` or `--iface-regex`.
pub(crate) enum Rule<'a> {
    Name(&'a str),
    Pattern(&'a Regex),
}

impl Rule<'_> {
    /// Returns the choice that this rule makes.
    fn choice<'a>(&self, families: &[Family], facts: &'a Facts) -> Option<Choice<'a>> {
        match self {
            Self::Name(name) => by_name(name, facts),
            Self::Pattern(pattern) => by_pattern(pattern, families, facts),
        }
    }

    /// Returns the interface that this rule selects.
    pub(crate) fn takes(&self, families: &[Family], facts: &Facts) -> Option<LinkName> {
        self.choice(families, facts).map(|choice| choice.interface.name)
    }

    /// Returns true if this rule would select the interface were it the only one.
    pub(crate) fn matches(&self, interface: &Interface, families: &[Family]) -> bool {
        let alone = Facts { interfaces: vec![interface.clone()], ..Facts::default() };
        self.takes(families, &alone).is_some()
    }

    /// Returns the flag as it is on the command line.
    pub(crate) fn flag(&self) -> String {
        match self {
            Self::Name(name) => format!("--iface {name}"),
            Self::Pattern(pattern) => format!("--iface-regex {pattern}"),
        }
    }
}

/// Returns the rules in the order in which they are tried.
pub(crate) fn rules(selection: &Selection) -> Vec<Rule<'_>> {
    let names = selection.names.iter().map(|name| Rule::Name(name));
    names.chain(selection.patterns.iter().map(Rule::Pattern)).collect()
}

/// Returns the error of a choice that only what is the overlay's would satisfy: the first flag, or
/// the route, that selects it.
pub(super) fn overlaid(
    requirements: &Requirements,
    selection: &Selection,
    facts: &Facts,
) -> Option<SelectionError> {
    let families = requirements.families();
    let error = |by: String, interface: &Interface| {
        let overlaid = requirements.overlaid(interface, facts)?;
        Some(SelectionError::Overlaid { by, link: interface.name, overlaid })
    };
    let named = |name: LinkName| facts.interfaces.iter().find(|found| found.name == name);
    let rules = rules(selection);
    if !rules.is_empty() {
        return rules.iter().find_map(|rule| {
            // The first match may be another interface, which lacks an address.
            let matching = facts.interfaces.iter().filter(|found| rule.matches(found, families));
            matching.filter_map(|interface| error(rule.flag(), interface)).next()
        });
    }
    if let Some(target) = selection.can_reach {
        let link = facts.route_to.map(|(link, _)| link);
        let by_route = || named(link?);
        let interface = owner(target, facts).or_else(by_route)?;
        return error(format!("--iface-can-reach {target}"), interface);
    }
    families.iter().find_map(|family| {
        let link = facts.default_routes(*family).first()?;
        error(format!("the {family} default route"), named(*link)?)
    })
}

fn owner(address: IpAddr, facts: &Facts) -> Option<&Interface> {
    by_name(&address.to_string(), facts).map(|choice| choice.interface)
}
