//! Finds out where a host refuses to forward the packets of an overlay.

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
    /// The packet filter that contains the chain.
    pub filter: Filter,
    /// Its table: `filter` for iptables; for nftables with its family, `inet firewalld`.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// The cause of the refusal.
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

/// One of the packet filters, all of which every packet has to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// The way in which a chain refuses packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// By its policy, as no rule accepts them.
    Policy,
    /// By a rule, which precedes any that accepts them.
    Rule,
}

/// Returns the chains at the forward hook that refuse packets from or to these networks: iptables
/// chains in both flavours, and nftables chains of other programs. Empty if all packets pass. Skips
/// filters whose programs are not installed.
///
/// Considers only rules that apply to every packet from or to a network, such as those of a
/// [`Firewall`](crate::Firewall). Does not detect a rule that refuses some of the packets, such as
/// those of one interface or port.
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

/// Turns the error for a missing program into `None`: without it there are no rules that could be
/// read.
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

/// Returns the cause if packets in one of the two directions are refused.
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
    fn drop_policy_needs_accept_in_both_directions() {
        assert_eq!(cause("DROP", &[]), Some(Refusal::Policy));
        assert_eq!(cause("DROP", &[JUMP, FROM]), Some(Refusal::Policy));
        assert_eq!(cause("DROP", &[FROM, TO]), Some(Refusal::Policy));
        assert_eq!(cause("DROP", &[JUMP, FROM, TO]), None);
        assert_eq!(cause("ACCEPT", &[]), None);
    }

    #[test]
    fn refusal_counts_only_before_accept() {
        assert_eq!(cause("ACCEPT", &[REJECT, JUMP, FROM, TO]), Some(Refusal::Rule));
        assert_eq!(cause("ACCEPT", &[JUMP, REJECT, FROM, TO]), None);
    }

    #[test]
    fn docker_accept_for_bridge_does_not_count() {
        let docker = [
            "FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "FORWARD -i docker0 -o docker0 -j ACCEPT",
        ];
        assert_eq!(cause("DROP", &docker), Some(Refusal::Policy));
    }

    #[test]
    fn refusal_display_is_a_sentence() {
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
