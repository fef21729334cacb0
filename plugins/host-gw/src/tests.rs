use std::net::IpAddr;

use super::*;

fn family(subnet: &str, public: &str) -> LeaseFamily {
    LeaseFamily { subnet: net(subnet), public_address: ip(public), backend_data: None }
}

fn lease(families: Vec<LeaseFamily>) -> Lease {
    Lease { families, backend_type: Some("host-gw".into()) }
}

fn own() -> Lease {
    lease(vec![family("10.244.8.0/24", "192.168.0.72")])
}

fn own_dual() -> Lease {
    lease(vec![family("10.244.8.0/24", "192.168.0.72"), family("fc00:0:0:8::/64", "fd00::72")])
}

fn peer_dual() -> Lease {
    lease(vec![family("10.244.36.0/24", "192.168.0.99"), family("fc00:0:0:36::/64", "fd00::99")])
}

fn dual() -> NetworkConfig {
    let network = |network, subnet_length| OverlayNetwork { network: net(network), subnet_length };
    NetworkConfig {
        networks: vec![network("10.244.0.0/16", 24), network("fc00::/48", 64)],
        backend: r#"{"Type":"host-gw"}"#.into(),
    }
}

fn node() -> Node {
    Node {
        id: "7f0c".into(),
        underlay: Underlay {
            link: "eth0".into(),
            mtu: 1500,
            addresses: ["192.168.0.72/24", "192.168.1.72/24", "fd00::72/64"].map(net).into(),
            public_addresses: ["192.168.0.72", "fd00::72"].map(ip).into(),
        },
        links: vec![],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_node_has_no_device_and_takes_nothing_of_a_packet() {
    let plan = |mtu| {
        let mut node = node();
        node.underlay.mtu = mtu;
        HostGwBackend::plan_node(&dual(), &node, &own_dual()).unwrap()
    };
    assert_eq!(plan(1500), NodePlan { plan: Plan::default(), mtu: 1500 });
    // The loopback interface's: no packet is as long.
    assert_eq!(plan(65536).mtu, 65535);
}

#[test]
fn the_lease_says_what_it_is_for_and_no_more() {
    let expected =
        Advertisements { backend_type: Some("host-gw".into()), backend_data: vec![None, None] };
    assert_eq!(HostGwBackend::advertise(&dual(), &node()), Ok(expected));
}

#[test]
fn a_public_address_that_is_not_the_interface_s_is_refused() {
    let error = |public_addresses: Vec<IpAddr>, addresses: Vec<IpNet>| {
        let mut node = node();
        node.underlay.public_addresses = public_addresses;
        node.underlay.addresses = addresses;
        HostGwBackend::advertise(&dual(), &node).unwrap_err().to_string()
    };
    let addresses = node().underlay.addresses;
    assert_eq!(
        error(vec![ip("203.0.113.7"), ip("fd00::72")], addresses.clone()),
        "Backend.Type is host-gw, and this node's public address 203.0.113.7 is not an address of eth0 (NAT): \
         expected another backend, such as vxlan, or --public-ip to be one of 192.168.0.72, 192.168.1.72"
    );
    assert_eq!(
        error(vec![ip("192.168.0.72"), ip("2001:db8::7")], addresses),
        "Backend.Type is host-gw, and this node's public address 2001:db8::7 is not an address of eth0 (NAT): \
         expected another backend, such as vxlan, or --public-ipv6 to be one of fd00::72"
    );
    assert_eq!(
        error(vec![ip("203.0.113.7")], vec![]),
        "Backend.Type is host-gw, and this node's public address 203.0.113.7 is not an address of eth0 (NAT): \
         expected another backend, such as vxlan"
    );
}

#[test]
fn a_peer_is_the_gateway_to_its_subnets_in_the_families_that_both_have() {
    let v4 = Route::via(net("10.244.36.0/24"), ip("192.168.0.99"), "eth0");
    let v6 = Route::via(net("fc00:0:0:36::/64"), ip("fd00::99"), "eth0");
    let peer_v4 = lease(vec![family("10.244.36.0/24", "192.168.0.99")]);
    for (own, peer, routes) in [
        (own_dual(), peer_dual(), vec![v4.clone(), v6]),
        (own(), peer_dual(), vec![v4.clone()]),
        (own_dual(), peer_v4, vec![v4]),
    ] {
        let plan = HostGwBackend::plan_peer(&dual(), &node(), &own, &peer);
        assert_eq!(plan, Ok(Plan { routes, ..Plan::default() }));
    }
}

#[test]
fn a_peer_of_another_backend_is_not_ours() {
    let kind = |kind: Option<&str>| {
        let peer = Lease { backend_type: kind.map(str::to_owned), ..peer_dual() };
        HostGwBackend::plan_peer(&dual(), &node(), &own(), &peer)
    };
    assert_eq!(kind(Some("vxlan")), Err(PeerError::OtherBackend("vxlan".into())));
    assert_eq!(kind(None), Err(PeerError::OtherBackend("udp".into())));
}

#[test]
fn a_peer_at_an_address_of_this_node_is_refused() {
    let peer = lease(vec![family("10.244.36.0/24", "192.168.0.72")]);
    let message =
        "its public address 192.168.0.72 is this node's own: expected the address of another node";
    assert_eq!(
        HostGwBackend::plan_peer(&dual(), &node(), &own(), &peer),
        Err(PeerError::Invalid(message.into()))
    );
}
