//! Checks that the daemon reaches its peers, from its answer.

use heddle_control::{Peer, PeerState, Status};
use heddle_core::text::{counted, list};

use crate::report::{Finding, Severity};

const CHECK: &str = "peers";

/// Number of peers named.
const NAMED: usize = 5;

/// Returns a finding for each kind of fault that peers have.
pub(crate) fn check(status: &Status) -> Vec<Finding> {
    let silent = |peer: &&Peer| peer.health.is_some_and(|health| !health.reachable);
    let of_state = |state| move |peer: &&Peer| peer.state == state;
    let found = [
        finding(
            status,
            silent,
            Severity::Error,
            "no answer over the overlay from",
            "Containers there are not reached",
            "Run `heddle doctor` on these hosts too. Check that the firewalls between the hosts, and those of both \
             hosts (INPUT and OUTPUT), let the backend's packets pass, and that heddled or flanneld runs there:",
            Some("heddle status"),
        ),
        finding(
            status,
            of_state(PeerState::Incomplete),
            Severity::Error,
            "not completely in the kernel:",
            "Containers there are not reached, or not all of them",
            "`heddle status` has the kernel's reason for each:",
            Some("heddle status"),
        ),
        finding(
            status,
            of_state(PeerState::NoPlan),
            Severity::Warning,
            "no plan for",
            "Containers there are not reached",
            "`heddle status` has the plugin's reason for each. All nodes need the same backend:",
            Some("heddle status"),
        ),
        finding(
            status,
            of_state(PeerState::NotUsed),
            Severity::Warning,
            "records not used:",
            "Containers of these nodes, if they exist, are not reached",
            "Correct or delete the records; `heddle lease list` has the reason for each:",
            Some("heddle lease list"),
        ),
    ];
    found.into_iter().flatten().collect()
}

fn finding(
    status: &Status,
    has_it: impl Fn(&&Peer) -> bool,
    severity: Severity,
    what: &str,
    symptom: &str,
    remedy: &str,
    command: Option<&str>,
) -> Option<Finding> {
    let concerned: Vec<_> = status.peers.iter().filter(has_it).collect();
    let named = list(concerned.iter().take(NAMED).map(|peer| name(peer)));
    let more = match concerned.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!concerned.is_empty()).then(|| Finding {
        check: CHECK,
        severity,
        problem: format!(
            "{what} {} of {}: {named}{more}",
            concerned.len(),
            counted(status.peers.len(), "peer")
        ),
        symptom: symptom.to_owned(),
        remedy: remedy.to_owned(),
        command: command.map(str::to_owned),
    })
}

/// Returns a peer's key, with the node's name or address.
fn name(peer: &Peer) -> String {
    let address = peer.public_addresses.first().map(ToString::to_string);
    match peer.node_name.clone().or(address) {
        Some(node) => format!("{} ({node})", peer.key),
        None => peer.key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use heddle_control::PeerHealth;

    use super::*;

    fn peer(number: u8, state: PeerState, reachable: Option<bool>) -> Peer {
        let health = reachable.map(|reachable| PeerHealth { reachable, ..PeerHealth::default() });
        let key = format!("10.244.{number}.0-24");
        Peer { key, node_name: Some(format!("n{number}")), state, health, ..Peer::default() }
    }

    fn problems(peers: Vec<Peer>) -> Vec<(Severity, String)> {
        let found = check(&Status { peers, ..Status::default() });
        found.into_iter().map(|finding| (finding.severity, finding.problem)).collect()
    }

    #[test]
    fn healthy_and_unprobed_peers_have_no_finding() {
        let peers =
            vec![peer(1, PeerState::InKernel, Some(true)), peer(2, PeerState::InKernel, None)];
        assert_eq!(problems(peers), []);
    }

    #[test]
    fn each_kind_of_fault_is_a_finding() {
        let peers = vec![
            peer(1, PeerState::InKernel, Some(false)),
            peer(2, PeerState::Incomplete, None),
            peer(3, PeerState::NoPlan, None),
            peer(4, PeerState::NotUsed, None),
        ];
        let expected = [
            (Severity::Error, "no answer over the overlay from 1 of 4 peers: 10.244.1.0-24 (n1)"),
            (Severity::Error, "not completely in the kernel: 1 of 4 peers: 10.244.2.0-24 (n2)"),
            (Severity::Warning, "no plan for 1 of 4 peers: 10.244.3.0-24 (n3)"),
            (Severity::Warning, "records not used: 1 of 4 peers: 10.244.4.0-24 (n4)"),
        ];
        let expected = expected.map(|(severity, problem)| (severity, problem.to_owned()));
        assert_eq!(problems(peers), expected);
    }

    #[test]
    fn many_silent_peers_are_one_finding() {
        let peers = (1..=200).map(|number| peer(number, PeerState::InKernel, Some(false)));
        let found = problems(peers.collect());
        assert_eq!(found.len(), 1);
        assert!(found[0].1.ends_with("10.244.5.0-24 (n5) and 195 more"), "{}", found[0].1);
    }
}
