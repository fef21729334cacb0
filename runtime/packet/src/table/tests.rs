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
fn longest_prefix_match_selects_the_peer() {
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
fn source_must_belong_to_the_sender() {
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
fn plugin_answers_override_subnet_owners() {
    let probes = table().probes();
    let expected = ["10.244.1.0", "fc00:0:0:1::", "10.244.2.0", "10.244.0.0", "10.244.3.0"];
    assert_eq!(probes, expected.map(address));
    let answers = [Some(2), Some(0), None, Some(1), Some(2)];
    let table = table().with_answers(&answers).unwrap();
    for (probe, answer) in probes.into_iter().zip(answers) {
        assert_eq!(table.route(probe), answer, "{probe}");
    }
    // The plugin has no say in who owns a source address.
    assert_eq!(table.accepts(address("192.0.2.1"), address("10.244.1.1")), Ok(0));
}

#[test]
fn mismatched_answers_are_refused() {
    let short = table().with_answers(&[None]).unwrap_err();
    assert_eq!(short, WrongAnswers::Count { expected: 5, found: 1 });
    let foreign = table().with_answers(&[None, None, None, None, Some(3)]).unwrap_err();
    assert_eq!(foreign, WrongAnswers::Peer { peer: 3, peers: 3 });
}

#[test]
fn duplicate_subnet_belongs_to_first_peer() {
    let both = [peer(&[], &["10.1.0.0/16"]), peer(&[], &["10.1.0.0/16"])];
    let table = Table::new(both.to_vec());
    assert_eq!(table.route(address("10.1.2.3")), Some(0));
    let table = table.with_answers(&[Some(1), Some(0)]).unwrap();
    assert_eq!(table.route(address("10.1.2.3")), Some(1));
}

#[test]
fn endpoint_lookup_is_by_family() {
    let table = table();
    assert_eq!(table.endpoint(0, Family::V6), Some(address("2001:db8::1")));
    assert_eq!(table.endpoint(1, Family::V4), Some(address("192.0.2.2")));
    assert_eq!(table.endpoint(1, Family::V6), None);
    assert_eq!(table.endpoint(9, Family::V4), None);
}

proptest! {
    #[test]
    fn lookup_equals_linear_search(
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
