//! Maps addresses to peers.

use std::collections::HashMap;
use std::net::IpAddr;

use heddle_core::address::Family;
use ipnet::IpNet;

/// A peer, as the path knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The addresses that its datagrams come from and go to: its public addresses, at most one per
    /// family.
    pub endpoints: Vec<IpAddr>,
    /// The subnets that its packets may come from.
    pub subnets: Vec<IpNet>,
}

/// All peers, referred to by index.
#[derive(Clone, Debug, Default)]
pub struct Table {
    peers: Vec<Peer>,
    endpoints: HashMap<IpAddr, Vec<u32>>,
    /// Routes by subnet, without host bits. If several peers have the same subnet, the first has
    /// the route.
    routes: HashMap<IpNet, Route>,
    /// The prefix lengths in use, longest first, by family.
    lengths: [Vec<u8>; 2],
}

/// The route to a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    /// The index of its probe in [`Table::probes`].
    probe: usize,
    peer: Option<u32>,
}

/// A packet whose source does not belong to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spoofed {
    /// The datagram's source is no peer's public address.
    #[error("no peer has this public address")]
    Outer,
    /// The packet's source is in no subnet of the peers with that public address.
    #[error("no peer with this public address has a subnet with the packet's source")]
    Inner,
}

/// Answers that do not match [`Table::probes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongAnswers {
    /// The number of answers is wrong.
    #[error("{found} answers to {expected} probes")]
    Count {
        /// The number of probes.
        expected: usize,
        /// The number of answers.
        found: usize,
    },
    /// An answer names a peer that does not exist.
    #[error("the answer is peer {peer}: expected one below {peers}")]
    Peer {
        /// The peer in the answer.
        peer: u32,
        /// The number of peers.
        peers: usize,
    },
}

impl Table {
    /// Creates a table of these peers, in which packets to a subnet go to the peer that owns it.
    pub fn new(peers: Vec<Peer>) -> Self {
        let mut table = Self::default();
        let mut probe = 0;
        for (index, peer) in (0..).zip(&peers) {
            for &endpoint in &peer.endpoints {
                table.endpoints.entry(endpoint).or_default().push(index);
            }
            for subnet in &peer.subnets {
                let route = Route { probe, peer: Some(index) };
                table.routes.entry(subnet.trunc()).or_insert(route);
                probe += 1;
            }
        }
        for subnet in table.routes.keys() {
            table.lengths[Family::of_network(*subnet) as usize].push(subnet.prefix_len());
        }
        for lengths in &mut table.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        Self { peers, ..table }
    }

    /// Returns the addresses to ask a plugin about, to learn where it sends packets to each subnet:
    /// the first address of each subnet, peer by peer.
    pub fn probes(&self) -> Vec<IpAddr> {
        let subnets = self.peers.iter().flat_map(|peer| &peer.subnets);
        subnets.map(IpNet::network).collect()
    }

    /// Returns the same table, except that packets to a subnet go where the plugin sends them
    /// according to its answers to [`Table::probes`].
    ///
    /// # Errors
    ///
    /// [`WrongAnswers`], if the answers do not match the probes.
    pub fn with_answers(mut self, answers: &[Option<u32>]) -> Result<Self, WrongAnswers> {
        let expected = self.peers.iter().map(|peer| peer.subnets.len()).sum();
        if answers.len() != expected {
            return Err(WrongAnswers::Count { expected, found: answers.len() });
        }
        let peers = self.peers.len();
        if let Some(&peer) = answers.iter().flatten().find(|&&peer| peer as usize >= peers) {
            return Err(WrongAnswers::Peer { peer, peers });
        }
        for route in self.routes.values_mut() {
            route.peer = answers[route.probe];
        }
        Ok(self)
    }

    /// Returns the peer that a packet to this address goes to, by longest prefix match.
    pub fn route(&self, destination: IpAddr) -> Option<u32> {
        self.find(destination)?.peer
    }

    /// Returns true if the address is in a peer's subnet, whether or not packets to it go to a
    /// peer.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }

    fn find(&self, address: IpAddr) -> Option<&Route> {
        let lengths = &self.lengths[Family::of(address) as usize];
        let subnets = lengths.iter().filter_map(|&length| IpNet::new(address, length).ok());
        subnets.filter_map(|subnet| self.routes.get(&subnet.trunc())).next()
    }

    /// Returns the peers with this public address.
    pub fn senders(&self, endpoint: IpAddr) -> &[u32] {
        self.endpoints.get(&endpoint).map_or(&[], Vec::as_slice)
    }

    /// Returns the peer, among these, that has a subnet with this address.
    pub fn owner(&self, peers: &[u32], address: IpAddr) -> Option<u32> {
        let has = |&peer: &u32| {
            self.peer(peer).is_some_and(|it| it.subnets.iter().any(|net| net.contains(&address)))
        };
        peers.iter().copied().find(has)
    }

    /// Returns the peer that sent a packet, by the source addresses of datagram and packet.
    ///
    /// For many datagrams from one source, look up [`Table::senders`] once and then
    /// [`Table::owner`] for each.
    ///
    /// # Errors
    ///
    /// [`Spoofed`], if no peer can have sent it.
    pub fn accepts(&self, outer: IpAddr, inner: IpAddr) -> Result<u32, Spoofed> {
        match self.senders(outer) {
            [] => Err(Spoofed::Outer),
            peers => self.owner(peers, inner).ok_or(Spoofed::Inner),
        }
    }

    /// Returns the public address of a peer in a family.
    pub fn endpoint(&self, peer: u32, family: Family) -> Option<IpAddr> {
        let endpoints = &self.peer(peer)?.endpoints;
        endpoints.iter().copied().find(|&endpoint| Family::of(endpoint) == family)
    }

    /// Returns all peers.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.peers.get(index as usize)
    }
}

#[cfg(test)]
mod tests;
