//! The numbers of peers by their condition.

use std::fmt;

use crate::{Peer, PeerState};

/// The numbers of peers by their condition. Each peer counts once, by what is worst about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// In the kernel, and answering probes.
    pub answering: u64,
    /// In the kernel, and not probed.
    pub unprobed: u64,
    /// In the kernel, and not answering probes.
    pub silent: u64,
    /// Partly in the kernel.
    pub incomplete: u64,
    /// Without a plan.
    pub unplanned: u64,
    /// With a record that is not used.
    pub unused: u64,
}

impl PeerCounts {
    /// Counts peers.
    pub fn of(peers: &[Peer]) -> Self {
        let mut counts = Self::default();
        for peer in peers {
            *counts.of_peer(peer) += 1;
        }
        counts
    }

    fn of_peer(&mut self, peer: &Peer) -> &mut u64 {
        match (peer.state, peer.health) {
            (PeerState::NotUsed, _) => &mut self.unused,
            (PeerState::NoPlan, _) => &mut self.unplanned,
            (PeerState::Incomplete, _) => &mut self.incomplete,
            (PeerState::InKernel | PeerState::Other, None) => &mut self.unprobed,
            (PeerState::InKernel | PeerState::Other, Some(health)) => match health.reachable {
                true => &mut self.answering,
                false => &mut self.silent,
            },
        }
    }

    /// Returns the number of all peers.
    pub fn total(&self) -> u64 {
        self.answering + self.unprobed + self.faulty()
    }

    /// Returns the number of peers with a fault: containers do not reach theirs, or not all of
    /// them.
    pub fn faulty(&self) -> u64 {
        self.silent + self.incomplete + self.unplanned + self.unused
    }
}

/// Writes the total, and the parts that are not zero: `6 (3 answer, 2 no answer, 1 not used)`. If no
/// peer is probed, that is not mentioned.
impl fmt::Display for PeerCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        let is_probing = self.answering + self.silent > 0;
        let parts = [
            (self.answering, "answer"),
            (if is_probing { self.unprobed } else { 0 }, "not probed"),
            (self.silent, "no answer"),
            (self.incomplete, "incomplete"),
            (self.unplanned, "no plan"),
            (self.unused, "not used"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        if parts.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerHealth;

    fn peer(state: PeerState, reachable: Option<bool>) -> Peer {
        let health = reachable.map(|reachable| PeerHealth { reachable, ..PeerHealth::default() });
        Peer { state, health, ..Peer::default() }
    }

    #[test]
    fn each_peer_counts_once_by_the_worst() {
        let peers = [
            peer(PeerState::InKernel, Some(true)),
            peer(PeerState::InKernel, Some(false)),
            peer(PeerState::InKernel, None),
            peer(PeerState::Incomplete, Some(false)),
            peer(PeerState::NoPlan, None),
            peer(PeerState::NotUsed, Some(true)),
        ];
        let counts = PeerCounts::of(&peers);
        assert_eq!((counts.total(), counts.faulty()), (6, 4));
        assert_eq!(
            counts.to_string(),
            "6 (1 answer, 1 not probed, 1 no answer, 1 incomplete, 1 no plan, 1 not used)"
        );
    }

    #[test]
    fn parts_without_peers_are_left_out() {
        assert_eq!(PeerCounts::default().to_string(), "0");
        let unprobed = [peer(PeerState::InKernel, None), peer(PeerState::NotUsed, None)];
        assert_eq!(PeerCounts::of(&unprobed).to_string(), "2 (1 not used)");
        let counts = PeerCounts::of(&[peer(PeerState::InKernel, Some(true))]);
        assert_eq!((counts.to_string().as_str(), counts.faulty()), ("1 (1 answer)", 0));
    }
}
