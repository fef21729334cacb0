//! Checks that the packet filters let the overlay's packets through this host.

use heddle_firewall::{Filter, ForwardRefusal};

use crate::report::{Finding, Severity};

/// State of heddled's own forward rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answering {
    /// True if heddled is configured to accept the overlay's packets (`--iptables-forward-rules`).
    pub(crate) wanted: bool,
    /// True if heddled runs.
    pub(crate) running: bool,
}

/// Drops the refusals that heddled will override once it runs. It does not change nftables tables
/// of other programs, so those stay.
pub(crate) fn check(refusals: &[ForwardRefusal], answering: Answering) -> Vec<Finding> {
    let Answering { wanted, running } = answering;
    let left =
        refusals.iter().filter(|refusal| refusal.filter == Filter::Nftables || !wanted || running);
    left.map(|refusal| finding(refusal, wanted)).collect()
}

fn finding(refusal: &ForwardRefusal, wanted: bool) -> Finding {
    let ForwardRefusal { filter, table, chain, .. } = refusal;
    let (remedy, command) = match filter {
        Filter::Nftables => (
            "heddled does not change tables of other programs. Accept traffic from and to the overlay's network in the \
             configuration of the program that owns the table:"
                .to_owned(),
            format!("nft list chain {table} {chain}"),
        ),
        _ if !wanted => (
            "Remove --iptables-forward-rules=false from heddled's flags, so that it accepts the overlay's traffic, or add \
             rules for it yourself:"
                .to_owned(),
            listing(*filter, refusal),
        ),
        _ => (
            "heddled repairs its rules within --iptables-resync seconds (default 5). If the problem persists, other rules \
             come first, or another program removes heddled's rules:"
                .to_owned(),
            listing(*filter, refusal),
        ),
    };
    Finding {
        check: "forward",
        severity: Severity::Error,
        problem: format!("{refusal} from or to the overlay's network"),
        symptom:
            "Hosts reach each other over the overlay, but containers on different hosts do not"
                .to_owned(),
        remedy,
        command: Some(command),
    }
}

fn listing(filter: Filter, refusal: &ForwardRefusal) -> String {
    let program = match (refusal.family, filter) {
        (heddle_core::address::Family::V6, Filter::IptablesLegacy) => "ip6tables-legacy",
        (heddle_core::address::Family::V6, _) => "ip6tables-nft",
        (_, Filter::IptablesLegacy) => "iptables-legacy",
        _ => "iptables-nft",
    };
    format!("{program} -L {} -nv", refusal.chain)
}

#[cfg(test)]
mod tests {
    use heddle_core::address::Family;
    use heddle_firewall::Refusal;

    use super::*;

    fn refusal(filter: Filter) -> ForwardRefusal {
        let table = if filter == Filter::Nftables { "inet firewalld" } else { "filter" };
        ForwardRefusal {
            family: Family::V4,
            filter,
            table: table.into(),
            chain: "FORWARD".into(),
            cause: Refusal::Policy,
        }
    }

    #[test]
    fn refusal_that_heddled_will_override_is_dropped() {
        for (filter, wanted, running, fault) in [
            (Filter::IptablesNft, true, false, false),
            (Filter::IptablesNft, true, true, true),
            (Filter::IptablesLegacy, false, false, true),
            (Filter::IptablesLegacy, false, true, true),
            (Filter::Nftables, true, false, true),
        ] {
            let found = check(&[refusal(filter)], Answering { wanted, running });
            assert_eq!(!found.is_empty(), fault, "{filter:?} {wanted} {running}");
        }
    }

    #[test]
    fn refusing_chain_is_named_with_listing_command() {
        let answering = Answering { wanted: true, running: true };
        let found = check(&[refusal(Filter::IptablesLegacy)], answering);
        assert_eq!(
            found[0].problem,
            "iptables-legacy: the policy of chain FORWARD in table filter refuses IPv4 packets from or to the overlay's \
             network"
        );
        assert_eq!(found[0].command.as_deref(), Some("iptables-legacy -L FORWARD -nv"));
        let found = check(&[refusal(Filter::Nftables)], answering);
        assert_eq!(found[0].command.as_deref(), Some("nft list chain inet firewalld FORWARD"));
    }
}
