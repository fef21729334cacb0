//! Finds out where the packet filters of this host drop the datagrams between it and its peers.

use std::collections::BTreeMap;
use std::fmt;

use heddle_core::address::Family;

use crate::datagram::condition::Datagrams;
use crate::datagram::table::{Drop, Fate, Table};
use crate::datagram::{listed, saved};
use crate::iptables::saved::Ruleset;
use crate::iptables::{Flavour, Installed, Place, Tools, legacy_in_use};
use crate::verdict::{Filter, unless_missing};
use crate::{FirewallError, nft};

/// The fate of datagrams in all packet filters of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatagramVerdict {
    /// Every filter lets them pass.
    Accepted,
    /// These drop or reject them, each for certain.
    Dropped(Vec<DatagramDrop>),
    /// No filter drops them for certain, but a rule that cannot be evaluated may.
    Unknown,
}

/// A place where datagrams are dropped or rejected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatagramDrop {
    /// The packet filter that contains the chain.
    pub filter: Filter,
    /// Family of the datagrams.
    pub family: Family,
    /// Its table: `filter` for iptables; for nftables with its family, `inet firewalld`.
    pub table: String,
    /// The chain at a hook, through which they reach the rule.
    pub base: String,
    /// The chain that contains the policy or rule.
    pub chain: String,
    /// The policy or the rule.
    pub cause: DropCause,
    /// Program that manages the chains, if it is known by their names.
    pub manager: Option<Manager>,
}

/// A program that writes the host's rules from a configuration of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// firewalld, with nftables or with iptables.
    Firewalld,
    /// ufw, with iptables.
    Ufw,
}

/// Part of a chain that drops datagrams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropCause {
    /// Its policy, as no rule accepts them.
    Policy,
    /// A rule.
    Rule {
        /// Position in the chain, from 1.
        number: usize,
        /// The rule as `iptables-save` prints it, or the handle of nftables.
        text: String,
    },
}

impl fmt::Display for DatagramDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { filter, table, chain, .. } = self;
        match &self.cause {
            DropCause::Policy => write!(f, "{filter}: the policy of")?,
            DropCause::Rule { number, text } if *filter == Filter::Nftables => {
                write!(f, "{filter}: rule {number} (handle {text}) of")?;
            }
            DropCause::Rule { number, text } => write!(f, "{filter}: rule {number} (`{text}`) of")?,
        }
        write!(f, " chain {chain} in table {table}")
    }
}

/// Evaluates the rules of both flavours of iptables and of nftables for each of these datagrams, in
/// that order. Skips filters whose programs are not installed.
///
/// Takes the datagrams as valid and not subject to address translation, and their ports as the
/// usual ones. Does not look at other sorts of filters: chains at the ingress of a device, bridges,
/// ipsets and eBPF.
///
/// # Errors
///
/// A program that fails.
pub fn datagram_verdicts(datagrams: &[Datagrams]) -> Result<Vec<DatagramVerdict>, FirewallError> {
    let families = datagrams.iter().map(Datagrams::family);
    let mut filters: BTreeMap<Family, Filters> =
        families.map(|it| (it, Filters::default())).collect();
    if filters.is_empty() {
        return Ok(Vec::new());
    }
    let listing = unless_missing(nft::list_ruleset())?.unwrap_or_default();
    for (&family, filters) in &mut filters {
        let installed = unless_missing(Installed::ask(family))?;
        for flavour in Flavour::ALL {
            if flavour == Flavour::Legacy && !legacy_in_use(family) {
                continue;
            }
            let tools = Tools::new(Place { family, flavour }, installed.as_ref());
            filters.add_saved(&unless_missing(tools.save())?.unwrap_or_default(), flavour);
        }
        filters.add_listed(&listing, family);
    }
    Ok(datagrams.iter().map(|it| filters[&it.family()].verdict(it)).collect())
}

/// All tables of a family that filter.
#[derive(Default)]
struct Filters {
    tables: Vec<Table>,
}

impl Filters {
    fn add_saved(&mut self, saved: &Ruleset, flavour: Flavour) {
        let filter = match flavour {
            Flavour::Nft => Filter::IptablesNft,
            Flavour::Legacy => Filter::IptablesLegacy,
        };
        self.tables.extend(saved::tables(saved, filter));
    }

    /// Adds the tables of nftables, apart from those that iptables wrote and has printed.
    fn add_listed(&mut self, listing: &[serde_json::Value], family: Family) {
        let printed = |name: &str| {
            let (of, name) = name.split_once(' ').unwrap_or_default();
            let mut tables = self.tables.iter();
            of != "inet" && tables.any(|it| it.filter == Filter::IptablesNft && it.name == name)
        };
        let mut listed = listed::tables(listing, family);
        listed.retain(|table| !printed(&table.name));
        self.tables.extend(listed);
    }

    fn verdict(&self, datagrams: &Datagrams) -> DatagramVerdict {
        let untracked = self.tables.iter().any(Table::untracks);
        let (mut drops, mut unknown) = (Vec::new(), false);
        for table in &self.tables {
            for fate in table.fates(datagrams, untracked) {
                match fate {
                    Fate::Accepted => {}
                    Fate::Unknown => unknown = true,
                    Fate::Dropped(drop) => drops.push(named(table, &drop, datagrams)),
                }
            }
        }
        match drops.is_empty() {
            false => DatagramVerdict::Dropped(drops),
            true if unknown => DatagramVerdict::Unknown,
            true => DatagramVerdict::Accepted,
        }
    }
}

fn named(table: &Table, drop: &Drop<'_>, datagrams: &Datagrams) -> DatagramDrop {
    DatagramDrop {
        filter: table.filter,
        family: datagrams.family(),
        table: table.name.clone(),
        base: drop.base.chain.clone(),
        chain: drop.chain.to_owned(),
        cause: match drop.rule {
            None => DropCause::Policy,
            Some(rule) => DropCause::Rule { number: rule.number, text: rule.text.clone() },
        },
        manager: manager(table),
    }
}

/// Returns the program that manages a table, by the names of its chains.
fn manager(table: &Table) -> Option<Manager> {
    let has = |name: &str| table.chains.contains_key(name);
    match table.filter {
        _ if has("ufw-before-input") || has("ufw6-before-input") => Some(Manager::Ufw),
        Filter::Nftables if table.name.ends_with(" firewalld") => Some(Manager::Firewalld),
        _ if has("INPUT_ZONES") => Some(Manager::Firewalld),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
