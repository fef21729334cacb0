//! Where the packets of an overlay are refused on their way through a host.

use std::fmt;

use heddle_core::address::Family;
use ipnet::IpNet;

use crate::iptables::{Flavour, Installed, Place, Tools, legacy_in_use};
use crate::nft;
use crate::nft::listing::{self, ListedTable};
use crate::rule::{Chains, Packets, accepted};
use crate::{FirewallError, iptables};

/// A chain at the forward hook that refuses packets of an overlay network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRefusal {
    /// The family of the packets.
    pub family: Family,
    /// Where the chain is.
    pub filter: Filter,
    /// The table that it is in: `filter` for iptables; for nftables with its family, `inet firewalld`.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What refuses them.
    pub cause: Refusal,
}

impl fmt::Display for ForwardRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, filter, table, chain, cause } = self;
        let cause = match cause {
            Refusal::Policy => "the policy",
            Refusal::Rule => "a rule",
        };
        write!(f, "{filter}: {cause} of chain {chain} in table {table} refuses {family} packets")
    }
}

/// One of the packet filters that every packet has to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// nf_tables, written by iptables.
    IptablesNft,
    /// x_tables.
    IptablesLegacy,
    /// nf_tables, written by anybody else.
    Nftables,
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Nftables => "nftables",
        })
    }
}

/// How a chain refuses packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// By its policy: no rule accepts them.
    Policy,
    /// By a rule that comes before any that accepts them.
    Rule,
}

/// The chains at the forward hook that refuse packets from or to these networks: those of iptables in both flavours, and
/// those of anybody else in nftables. Empty: they pass. What is not installed is not looked at.
///
/// Only rules that concern every packet from or to a network are considered, such as those of a
/// [`Firewall`](crate::Firewall). A rule that refuses some of them, for one interface or one port, goes unnoticed.
///
/// # Errors
///
/// A program that fails.
pub fn forward_verdicts(networks: &[IpNet]) -> Result<Vec<ForwardRefusal>, FirewallError> {
    let mut refusals = Vec::new();
    let ruleset = unless_missing(nft::list_ruleset())?.unwrap_or_default();
    for &network in networks {
        let family = Family::of_network(network);
        let installed = unless_missing(Installed::ask(family))?;
        let mut written_by_iptables = false;
        for flavour in Flavour::ALL {
            if flavour == Flavour::Legacy && !legacy_in_use(family) {
                continue;
            }
            let tools = Tools::new(Place { family, flavour }, installed.as_ref());
            let saved = unless_missing(tools.save())?.unwrap_or_default();
            if let Some(filter) = saved.table("filter") {
                written_by_iptables |= flavour == Flavour::Nft;
                refusals.extend(refused_by_iptables(filter, network, flavour));
            }
        }
        for table in listing::tables(&ruleset, family) {
            let seen = written_by_iptables && table.name == "filter" && table.family != "inet";
            if !seen {
                refusals.extend(refused_by_nftables(&table, network));
            }
        }
    }
    Ok(refusals)
}

/// What is not installed has no rules that could be looked at.
pub(crate) fn unless_missing<T>(
    result: Result<T, FirewallError>,
) -> Result<Option<T>, FirewallError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(FirewallError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn refused_by_iptables(
    filter: &iptables::saved::Table,
    network: IpNet,
    flavour: Flavour,
) -> Option<ForwardRefusal> {
    let policy = &filter.chains.get("FORWARD")?.policy;
    Some(ForwardRefusal {
        family: Family::of_network(network),
        filter: match flavour {
            Flavour::Nft => Filter::IptablesNft,
            Flavour::Legacy => Filter::IptablesLegacy,
        },
        table: "filter".into(),
        chain: "FORWARD".into(),
        cause: refused(&filter.steps(), "FORWARD", policy == "DROP", network)?,
    })
}

fn refused_by_nftables(table: &ListedTable, network: IpNet) -> Vec<ForwardRefusal> {
    let refusals = table.forward.iter().filter_map(|(chain, &drops)| {
        Some(ForwardRefusal {
            family: Family::of_network(network),
            filter: Filter::Nftables,
            table: format!("{} {}", table.family, table.name),
            chain: chain.clone(),
            cause: refused(&table.chains, chain, drops, network)?,
        })
    });
    refusals.collect()
}

/// Whether packets in one of the two directions are refused.
fn refused(chains: &Chains, chain: &str, policy_drops: bool, network: IpNet) -> Option<Refusal> {
    [Packets::From(network), Packets::To(network)].into_iter().find_map(|packets| {
        match accepted(chains, chain, packets) {
            Some(true) => None,
            Some(false) => Some(Refusal::Rule),
            None => policy_drops.then_some(Refusal::Policy),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::saved::Ruleset;

    fn cause(policy: &str, rules: &[&str]) -> Option<Refusal> {
        let rules: String = rules.iter().map(|rule| format!("-A {rule}\n")).collect();
        let saved =
            format!("*filter\n:FORWARD {policy} [0:0]\n:FLANNEL-FWD - [0:0]\n{rules}COMMIT\n");
        let saved = Ruleset::parse(&saved).unwrap();
        let network = "10.244.0.0/16".parse().unwrap();
        let refusal =
            refused_by_iptables(saved.table("filter").unwrap(), network, Flavour::Legacy)?;
        assert_eq!(refusal.filter, Filter::IptablesLegacy);
        Some(refusal.cause)
    }

    const JUMP: &str = "FORWARD -j FLANNEL-FWD";
    const FROM: &str = "FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT";
    const TO: &str = "FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT";
    const REJECT: &str = "FORWARD -j REJECT --reject-with icmp-host-prohibited";

    #[test]
    fn a_policy_of_drop_is_answered_by_an_accept_both_ways() {
        assert_eq!(cause("DROP", &[]), Some(Refusal::Policy));
        assert_eq!(cause("DROP", &[JUMP, FROM]), Some(Refusal::Policy));
        assert_eq!(cause("DROP", &[FROM, TO]), Some(Refusal::Policy));
        assert_eq!(cause("DROP", &[JUMP, FROM, TO]), None);
        assert_eq!(cause("ACCEPT", &[]), None);
    }

    #[test]
    fn a_refusal_counts_if_it_comes_first() {
        assert_eq!(cause("ACCEPT", &[REJECT, JUMP, FROM, TO]), Some(Refusal::Rule));
        assert_eq!(cause("ACCEPT", &[JUMP, REJECT, FROM, TO]), None);
    }

    #[test]
    fn what_docker_accepts_for_its_bridge_is_no_answer() {
        let docker = [
            "FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "FORWARD -i docker0 -o docker0 -j ACCEPT",
        ];
        assert_eq!(cause("DROP", &docker), Some(Refusal::Policy));
    }

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        let refusal = ForwardRefusal {
            family: Family::V4,
            filter: Filter::Nftables,
            table: "inet firewalld".into(),
            chain: "filter_FORWARD".into(),
            cause: Refusal::Rule,
        };
        assert_eq!(
            refusal.to_string(),
            "nftables: a rule of chain filter_FORWARD in table inet firewalld refuses IPv4 packets"
        );
    }
}
