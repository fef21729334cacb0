use super::*;

fn family(subnet: &str, public: &str) -> LeaseFamily {
    LeaseFamily {
        subnet: subnet.parse().unwrap(),
        public_address: public.parse().unwrap(),
        backend_data: None,
    }
}

fn lease(families: Vec<LeaseFamily>) -> Lease {
    Lease { families, backend_type: None }
}

fn own() -> Lease {
    lease(vec![family("10.244.8.0/24", "192.168.0.72")])
}

fn own_dual() -> Lease {
    lease(vec![family("10.244.8.0/24", "192.168.0.72"), family("fc00:0:0:8::/64", "fd00::72")])
}

fn config(backend: &str) -> NetworkConfig {
    let network = OverlayNetwork { network: net("10.244.0.0/16"), subnet_length: 24 };
    NetworkConfig { networks: vec![network], backend: backend.to_owned() }
}

fn dual(backend: &str) -> NetworkConfig {
    let mut config = config(backend);
    config.networks.push(OverlayNetwork { network: net("fc00::/48"), subnet_length: 64 });
    config
}

fn node() -> Node {
    Node {
        id: "7f0c".into(),
        underlay: Underlay {
            link: "eth0".into(),
            mtu: 1500,
            addresses: ["192.168.0.72/24", "fe80::1/64", "fd00::72/64"].map(net).into(),
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

const UDP: &str = r#"{"Type":"udp"}"#;

fn device(config: &NetworkConfig, node: &Node, lease: &Lease) -> (u32, Tun) {
    let node_plan = UdpBackend::plan_node(config, node, lease).unwrap();
    let link = &node_plan.plan.links[0];
    let LinkKind::Tun(tun) = link.kind.clone() else { panic!("{link:?}") };
    assert_eq!(node_plan.mtu, link.mtu);
    (link.mtu, tun)
}

#[test]
fn the_node_has_the_device_that_flannel_makes() {
    let node_plan = UdpBackend::plan_node(&config(UDP), &node(), &own()).unwrap();
    let expected = Plan {
        links: vec![Link {
            name: "flannel0".into(),
            mtu: 1472,
            mac: None,
            kind: LinkKind::Tun(Tun { local: vec![ip("192.168.0.72")], port: 8285 }),
        }],
        sysctls: vec![Sysctl {
            link: "flannel0".into(),
            family: Family::V6,
            name: "accept_ra".into(),
            value: "0".into(),
        }],
        addresses: vec![Address { link: "flannel0".into(), network: net("10.244.8.0/32") }],
        routes: vec![Route::dev(net("10.244.0.0/16"), "flannel0")],
        ..Plan::default()
    };
    assert_eq!(node_plan, NodePlan { plan: expected, mtu: 1472 });
}

#[test]
fn dual_stack_has_one_device_with_the_smaller_mtu() {
    let node_plan = UdpBackend::plan_node(&dual(UDP), &node(), &own_dual()).unwrap();
    assert_eq!((node_plan.plan.links.len(), node_plan.mtu), (1, 1452));
    let (_, tun) = device(&dual(UDP), &node(), &own_dual());
    assert_eq!(tun.local, [ip("192.168.0.72"), ip("fd00::72")]);
    let addresses = node_plan.plan.addresses.iter().map(|address| address.network);
    assert!(addresses.eq([net("10.244.8.0/32"), net("fc00:0:0:8::/128")]));
    let routes = ["10.244.0.0/16", "fc00::/48"].map(|network| Route::dev(net(network), "flannel0"));
    assert_eq!(node_plan.plan.routes, routes);
}

#[test]
fn the_port_is_the_config_s_or_flannel_s() {
    for (backend, expected) in
        [(UDP, 8285), (r#"{"port":0}"#, 8285), (r#"{"Port":1}"#, 1), (r#"{"port":65535}"#, 65535)]
    {
        assert_eq!(device(&config(backend), &node(), &own()).1.port, expected, "{backend}");
    }
    let rule = "expected a whole number from 0 to 65535";
    for value in ["65536", "-1", "\"8285\""] {
        let config = config(&format!(r#"{{"Port":{value}}}"#));
        let expected = format!("Backend.Port is {value}: {rule}");
        let advertised = UdpBackend::advertise(&config, &node()).unwrap_err();
        let planned = UdpBackend::plan_node(&config, &node(), &own()).unwrap_err();
        assert_eq!([advertised.to_string(), planned.to_string()], [expected.clone(), expected]);
    }
}

#[test]
fn an_interface_too_small_for_the_headers_is_an_error() {
    let with_mtu = |mtu| {
        let mut node = node();
        node.underlay.mtu = mtu;
        node
    };
    let error = |config, mtu, lease| {
        UdpBackend::plan_node(&config, &with_mtu(mtu), &lease).unwrap_err().to_string()
    };
    assert_eq!(
        error(config(UDP), 95, own()),
        "Backend.Type is for interfaces with an MTU of 96 or more: that of eth0 is 95"
    );
    assert_eq!(
        error(dual(UDP), 1327, own_dual()),
        "Backend.Type is for interfaces with an MTU of 1328 or more: that of eth0 is 1327"
    );
    assert_eq!(device(&config(UDP), &with_mtu(96), &own()).0, 68);
    assert_eq!(device(&dual(UDP), &with_mtu(1328), &own_dual()).0, 1280);
    // The loopback interface's.
    assert_eq!(device(&config(UDP), &with_mtu(65536), &own()).0, 65_507);
}

#[test]
fn behind_nat_the_interface_s_own_address_is_the_source() {
    let mut node = node();
    node.underlay.public_addresses = ["203.0.113.7", "2001:db8::7"].map(ip).into();
    let lease = lease(vec![
        family("10.244.8.0/24", "203.0.113.7"),
        family("fc00:0:0:8::/64", "2001:db8::7"),
    ]);
    let (_, tun) = device(&dual(UDP), &node, &lease);
    assert_eq!(tun.local, [ip("192.168.0.72"), ip("fd00::72")]);
}

#[test]
fn the_lease_says_as_little_as_flannel_s() {
    let advertisements = UdpBackend::advertise(&dual(UDP), &node()).unwrap();
    let expected = Advertisements { backend_type: None, backend_data: vec![None, None] };
    assert_eq!(advertisements, expected);
}

#[test]
fn a_peer_takes_nothing_of_the_kernel() {
    let kind = |kind: Option<&str>| {
        let mut peer = lease(vec![family("10.244.36.0/24", "192.168.0.99")]);
        peer.backend_type = kind.map(str::to_owned);
        UdpBackend::plan_peer(&config(UDP), &node(), &own(), &peer)
    };
    assert_eq!(kind(None), Ok(Plan::default()));
    assert_eq!(kind(Some("udp")), Ok(Plan::default()));
    assert_eq!(kind(Some("vxlan")), Err(PeerError::OtherBackend("vxlan".into())));
}

#[test]
fn a_peer_at_an_address_of_this_node_is_refused() {
    let message = |config: NetworkConfig, own: Lease, peer| match UdpBackend::plan_peer(
        &config,
        &node(),
        &own,
        &lease(vec![family("10.244.36.0/24", "192.168.0.99"), peer]),
    ) {
        Err(PeerError::Invalid(message)) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        message(dual(UDP), own_dual(), family("fc00:0:0:36::/64", "fd00::72")),
        "its public address fd00::72 is this node's own: expected the address of another node"
    );
}

#[test]
fn a_packet_goes_to_the_peer_whose_subnet_its_destination_is_in() {
    let peers = [
        lease(vec![family("10.244.0.0/17", "192.168.0.98")]),
        lease(vec![
            family("10.244.36.0/24", "192.168.0.99"),
            family("fc00:0:0:36::/64", "fd00::99"),
        ]),
    ];
    let backend = UdpBackend::with_peers(&dual(UDP), &node(), &own_dual(), &peers);
    for (destination, expected) in [
        ("10.244.36.7", Some(1)),
        ("10.244.37.7", Some(0)),
        ("10.244.128.7", None),
        ("fc00:0:0:36::7", Some(1)),
        ("fc00:0:0:37::7", None),
    ] {
        assert_eq!(backend.steer(ip(destination)), expected, "{destination}");
    }
}
