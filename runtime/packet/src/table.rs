//! Whose an address is.

use std::collections::HashMap;
use std::net::IpAddr;

use heddle_core::address::Family;
use ipnet::IpNet;

/// What the path knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where its datagrams come from and go to: its public addresses, at most one of a family.
    pub endpoints: Vec<IpAddr>,
    /// Whose packets it may send.
    pub subnets: Vec<IpNet>,
}

/// All peers, which are spoken of by their index.
#[derive(Clone, Debug, Default)]
pub struct Table {
    peers: Vec<Peer>,
    endpoints: HashMap<IpAddr, Vec<u32>>,
    /// By subnet, host bits cut off. Where several peers have the same, that of the first.
    routes: HashMap<IpNet, Route>,
    /// The prefix lengths that occur, the longest first, by family.
    lengths: [Vec<u8>; 2],
}

/// Where packets to a subnet go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    /// Which of [`Table::probes`] it is.
    probe: usize,
    peer: Option<u32>,
}

/// A datagram with a source that is not its sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spoofed {
    /// It comes from no peer's public address.
    #[error("no peer has this public address")]
    Outer,
    /// The packet in it is of nobody in the subnets of the peers with that public address.
    #[error("no peer with this public address has a subnet with the packet's source")]
    Inner,
}

/// Answers that are not those to [`Table::probes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongAnswers {
    /// More or less than were asked for.
    #[error("{found} answers to {expected} probes")]
    Count {
        /// The number of probes.
        expected: usize,
        /// The number of answers.
        found: usize,
    },
    /// An answer names no peer.
    #[error("the answer is peer {peer}: expected one below {peers}")]
    Peer {
        /// In the answer.
        peer: u32,
        /// How many there are.
        peers: usize,
    },
}

impl Table {
    /// A table of these peers, which packets to a subnet reach at the peer whose it is.
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

    /// What to ask a plugin in order to know where it sends packets to each subnet: the first address of each, peer
    /// by peer.
    pub fn probes(&self) -> Vec<IpAddr> {
        let subnets = self.peers.iter().flat_map(|peer| &peer.subnets);
        subnets.map(IpNet::network).collect()
    }

    /// The same table, but packets to a subnet go where the plugin sends them by its answers to [`Table::probes`].
    ///
    /// # Errors
    ///
    /// These are no answers to the probes.
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

    /// Which peer a packet to this address goes to, by the longest subnet that contains it.
    pub fn route(&self, destination: IpAddr) -> Option<u32> {
        self.find(destination)?.peer
    }

    /// Returns true if the address is in a peer's subnet, whether packets to it go to a peer or not.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }

    fn find(&self, address: IpAddr) -> Option<&Route> {
        let lengths = &self.lengths[Family::of(address) as usize];
        let subnets = lengths.iter().filter_map(|&length| IpNet::new(address, length).ok());
        subnets.filter_map(|subnet| self.routes.get(&subnet.trunc())).next()
    }

    /// The peers with this public address.
    pub fn senders(&self, endpoint: IpAddr) -> &[u32] {
        self.endpoints.get(&endpoint).map_or(&[], Vec::as_slice)
    }

    /// Which of these peers has a subnet with this address.
    pub fn owner(&self, peers: &[u32], address: IpAddr) -> Option<u32> {
        let has = |&peer: &u32| {
            self.peer(peer).is_some_and(|it| it.subnets.iter().any(|net| net.contains(&address)))
        };
        peers.iter().copied().find(has)
    }

    /// The peer that sent a packet with this source in a datagram with this source.
    ///
    /// Of many datagrams of one source, look up [`Table::senders`] once and then [`Table::owner`] of each.
    ///
    /// # Errors
    ///
    /// No peer can have sent it.
    pub fn accepts(&self, outer: IpAddr, inner: IpAddr) -> Result<u32, Spoofed> {
        match self.senders(outer) {
            [] => Err(Spoofed::Outer),
            peers => self.owner(peers, inner).ok_or(Spoofed::Inner),
        }
    }

    /// The public address of a peer in a family.
    pub fn endpoint(&self, peer: u32, family: Family) -> Option<IpAddr> {
        let endpoints = &self.peer(peer)?.endpoints;
        endpoints.iter().copied().find(|&endpoint| Family::of(endpoint) == family)
    }

    /// All peers.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.peers.get(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(endpoints: &[&str], subnets: &[&str]) -> Peer {
        Peer {
            endpoints: endpoints.iter().map(|it| it.parse().unwrap()).collect(),
            subnets: subnets.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn table() -> Table {
        Table::new(vec![
            peer(&["192.0.2.1", "2001:db8::1"], &["10.244.1.0/24", "fc00:0:0:1::/64"]),
            peer(&["192.0.2.2"], &["10.244.2.7/24", "10.244.0.0/16"]),
            peer(&["192.0.2.2"], &["10.244.3.0/24"]),
        ])
    }

    #[test]
    fn the_longest_subnet_says_where_a_packet_goes() {
        let table = table();
        for (destination, peer) in [
            ("10.244.1.9", Some(0)),
            ("10.244.2.9", Some(1)),
            ("10.244.3.9", Some(2)),
            ("10.244.4.9", Some(1)),
            ("10.245.0.1", None),
            ("fc00:0:0:1::9", Some(0)),
            ("fc00:0:0:2::9", None),
        ] {
            assert_eq!(table.route(address(destination)), peer, "{destination}");
        }
    }

    #[test]
    fn a_source_is_one_of_the_sender() {
        let table = table();
        let accepts = |outer, inner| table.accepts(address(outer), address(inner));
        assert_eq!(accepts("192.0.2.1", "10.244.1.1"), Ok(0));
        assert_eq!(accepts("192.0.2.1", "fc00:0:0:1::1"), Ok(0));
        assert_eq!(accepts("2001:db8::1", "10.244.1.1"), Ok(0));
        assert_eq!(accepts("192.0.2.1", "10.244.2.1"), Err(Spoofed::Inner));
        assert_eq!(accepts("192.0.2.3", "10.244.1.1"), Err(Spoofed::Outer));
        // Two peers with one address.
        assert_eq!(accepts("192.0.2.2", "10.244.2.1"), Ok(1));
        assert_eq!(accepts("192.0.2.2", "10.244.3.1"), Ok(1));
        assert_eq!(accepts("192.0.2.2", "10.245.3.1"), Err(Spoofed::Inner));
    }

    #[test]
    fn the_plugins_answers_go_before_our_own() {
        let probes = table().probes();
        let expected = ["10.244.1.0", "fc00:0:0:1::", "10.244.2.0", "10.244.0.0", "10.244.3.0"];
        assert_eq!(probes, expected.map(address));
        let answers = [Some(2), Some(0), None, Some(1), Some(2)];
        let table = table().with_answers(&answers).unwrap();
        for (probe, answer) in probes.into_iter().zip(answers) {
            assert_eq!(table.route(probe), answer, "{probe}");
        }
        // Whose a source is, is not the plugin's to say.
        assert_eq!(table.accepts(address("192.0.2.1"), address("10.244.1.1")), Ok(0));
    }

    #[test]
    fn other_answers_are_refused() {
        let short = table().with_answers(&[None]).unwrap_err();
        assert_eq!(short, WrongAnswers::Count { expected: 5, found: 1 });
        let foreign = table().with_answers(&[None, None, None, None, Some(3)]).unwrap_err();
        assert_eq!(foreign, WrongAnswers::Peer { peer: 3, peers: 3 });
    }

    #[test]
    fn a_subnet_of_two_peers_is_the_firsts() {
        let both = [peer(&[], &["10.1.0.0/16"]), peer(&[], &["10.1.0.0/16"])];
        let table = Table::new(both.to_vec());
        assert_eq!(table.route(address("10.1.2.3")), Some(0));
        let table = table.with_answers(&[Some(1), Some(0)]).unwrap();
        assert_eq!(table.route(address("10.1.2.3")), Some(1));
    }

    #[test]
    fn a_peer_has_an_address_of_each_family_or_not() {
        let table = table();
        assert_eq!(table.endpoint(0, Family::V6), Some(address("2001:db8::1")));
        assert_eq!(table.endpoint(1, Family::V4), Some(address("192.0.2.2")));
        assert_eq!(table.endpoint(1, Family::V6), None);
        assert_eq!(table.endpoint(9, Family::V4), None);
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_a_search_of_all_subnets_finds(
            subnets in prop::collection::vec((any::<u16>(), 0u8..=32), 0..20),
            destination: u16,
        ) {
            let place = |bits: u16| std::net::Ipv4Addr::from(u32::from(bits) << 16 | u32::from(bits));
            let subnets: Vec<IpNet> = subnets
                .into_iter()
                .map(|(bits, length)| IpNet::new(place(bits).into(), length).unwrap())
                .collect();
            let destination = IpAddr::from(place(destination));
            let mut expected: Option<(u8, u32)> = None;
            for (index, subnet) in (0..).zip(&subnets) {
                if subnet.contains(&destination)
                    && expected.is_none_or(|(length, _)| subnet.prefix_len() > length)
                {
                    expected = Some((subnet.prefix_len(), index));
                }
            }
            let peers = subnets.iter().map(|&it| Peer { endpoints: vec![], subnets: vec![it] });
            let table = Table::new(peers.collect());
            prop_assert_eq!(table.route(destination), expected.map(|(_, index)| index));
        }
    }
}
