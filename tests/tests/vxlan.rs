//! The vxlan backend: the objects that two nodes program for each other, and packets between them.

use std::os::unix::fs::PermissionsExt;

use heddle_lab::{Families, FdbEntry, KernelState, Neighbour, Route};
use heddle_tests::{Cluster, Node, Overlay, PROTOCOL};
use serde_json::{Value, json};

fn mac(node: &Node, overlay: Overlay) -> String {
    node.link(overlay.device())["address"].as_str().unwrap().to_owned()
}

/// Checks every property of the device that the specification names.
fn check_device(cluster: &Cluster, node: &Node, overlay: Overlay) {
    let device = overlay.device();
    let link = node.link(device);
    let data = &link["linkinfo"]["info_data"];
    assert_eq!(link["linkinfo"]["info_kind"], "vxlan", "{link:#}");
    let local = if overlay == Overlay::V4 { "local" } else { "local6" };
    assert_eq!(data["id"], 1, "{link:#}");
    assert_eq!(data[local], overlay.address_of(&node.host).to_string(), "{link:#}");
    assert_eq!(data["link"], "eth0", "{link:#}");
    assert_eq!(data["port"], 8472, "{link:#}");
    assert_eq!(data["learning"], false, "{link:#}");
    // `ttl auto`: the kernel's choice, which `ip -j` shows as 0 or omits.
    assert!(matches!(data["ttl"].as_u64(), None | Some(0)), "{link:#}");
    assert_ne!(data["ttl_inherit"], true, "{link:#}");
    let (mtu, length) = if overlay == Overlay::V4 { (1450, 32) } else { (1430, 128) };
    assert_eq!(link["mtu"], mtu, "{link:#}");
    let flags = link["flags"].as_array().unwrap();
    assert!(flags.contains(&json!("UP")), "{link:#}");

    let global: Vec<_> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|info| info["scope"] == "global")
        .map(|info| {
            (info["local"].as_str().unwrap().to_owned(), info["prefixlen"].as_u64().unwrap())
        })
        .collect();
    let first = cluster.subnet(node, overlay).addr().to_string();
    assert_eq!(global, [(first, length)]);

    let accept_ra = node.host.namespace().sysctl(&format!("ipv6/conf/{device}/accept_ra"));
    assert_eq!(accept_ra.unwrap(), "0");
}

/// Returns the objects that a node should have for `peer`, in one family.
fn objects_for(cluster: &Cluster, peer: &Node, overlay: Overlay) -> KernelState {
    let device = overlay.device().to_owned();
    let subnet = cluster.subnet(peer, overlay);
    KernelState {
        routes: [Route {
            dst: subnet.to_string(),
            gateway: Some(subnet.addr().to_string()),
            dev: Some(device.clone()),
            kind: None,
            protocol: Some(PROTOCOL.into()),
            flags: vec!["onlink".into()],
            // The kernel's default metric for IPv6 is IP6_RT_PRIO_USER.
            metric: (overlay == Overlay::V6).then_some(1024),
        }]
        .into(),
        neighbours: [Neighbour {
            dst: subnet.addr().to_string(),
            dev: device.clone(),
            lladdr: Some(mac(peer, overlay)),
            state: vec!["PERMANENT".into()],
        }]
        .into(),
        fdb: [FdbEntry {
            mac: mac(peer, overlay),
            ifname: device,
            dst: Some(overlay.address_of(&peer.host).to_string()),
            flags: vec!["self".into()],
            state: "permanent".into(),
        }]
        .into(),
    }
}

/// Starts two nodes, checks their whole visible state, and sends packets in both directions.
fn two_nodes(families: Families, overlays: &[Overlay]) {
    let mtu = if families.v6() { 1430 } else { 1450 };
    let cluster = Cluster::new(families);
    let mut nodes = [cluster.starting_node("a", &[]), cluster.starting_node("b", &[])];
    for node in &mut nodes {
        node.daemon().wait_ready().unwrap();
    }
    let [a, b] = &nodes;
    for (node, peer) in [(a, b), (b, a)] {
        for &overlay in overlays {
            check_device(&cluster, node, overlay);
            let expected = objects_for(&cluster, peer, overlay);
            heddle_lab::wait_until("the peer's objects", heddle_tests::SOON, || {
                let found = node.objects(overlay.device());
                if found == expected { Ok(()) } else { Err(format!("{found:#?}")) }
            })
            .unwrap();
        }

        let lease = cluster.lease(node);
        let data = |overlay| Some(format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(node, overlay)));
        assert_eq!(lease.value, node.lease_value(overlays, Some("vxlan"), data));
        let (granted, left) = cluster.etcd().time_to_live(lease.lease).unwrap();
        assert_eq!(granted, 86_400);
        assert!((86_000..=86_400).contains(&left), "{left}");

        let file = node.host.subnet_file();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), cluster.subnet_env(node, mtu));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    }
    assert_eq!(cluster.etcd().leases().unwrap().len(), 2);

    let (in_a, in_b) = (a.host.container().unwrap(), b.host.container().unwrap());
    for (from, to) in [(&in_a, &in_b), (&in_b, &in_a)] {
        assert_eq!(to.addresses().len(), overlays.len());
        for &address in to.addresses() {
            let headers = if address.is_ipv4() { 28 } else { 48 };
            from.ping(address, mtu - headers).unwrap();
        }
    }
}

#[test]
fn two_nodes_with_ipv4_reach_each_other() {
    two_nodes(Families::V4, &[Overlay::V4]);
}

#[test]
fn two_nodes_with_ipv6_only_reach_each_other() {
    two_nodes(Families::V6, &[Overlay::V6]);
}

#[test]
fn two_nodes_with_both_families_reach_each_other() {
    two_nodes(Families::Dual, &[Overlay::V4, Overlay::V6]);
}

#[test]
fn backend_keys_configure_the_device() {
    let config = r#"{"network":"10.7.0.0/20","subnetlen":26,"SubnetMin":"10.7.3.0","SubnetMax":"10.7.3.64",
        "Backend":{"type":"vxlan","vni":4096,"Port":4789,"MTU":1400,"Learning":true,"GBP":true}}"#;
    let cluster = Cluster::with_config(Families::V4, Some(config));
    let nodes = [cluster.node("a"), cluster.node("b")];

    let mut taken: Vec<_> = nodes.iter().map(|node| cluster.subnet(node, Overlay::V4)).collect();
    taken.sort();
    assert_eq!(taken, ["10.7.3.0/26", "10.7.3.64/26"].map(|subnet| subnet.parse().unwrap()));
    let link = nodes[0].link("flannel.4096");
    let data = &link["linkinfo"]["info_data"];
    assert_eq!((&data["id"], &data["port"]), (&json!(4096), &json!(4789)), "{link:#}");
    assert_eq!((&data["learning"], &data["gbp"]), (&json!(true), &json!(true)), "{link:#}");
    assert_eq!(link["mtu"], 1350);
    let env = std::fs::read_to_string(nodes[0].host.subnet_file()).unwrap();
    assert!(env.starts_with("FLANNEL_NETWORK=10.7.0.0/20\nFLANNEL_SUBNET=10.7.3."), "{env}");
    assert!(env.contains("/26\nFLANNEL_MTU=1350\n"), "{env}");

    let [in_a, in_b] = nodes.each_ref().map(|node| node.host.container().unwrap());
    in_a.ping(in_b.addresses()[0], 1350 - 28).unwrap();
}

#[test]
fn direct_routing_uses_tunnel_only_beyond_router() {
    let config = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
    let cluster = Cluster::with_config(Families::V4, Some(config));
    // Reachable only through the router.
    let far = r#"{"PublicIP":"172.16.0.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}"#;
    cluster.put_lease("10.244.250.0-24", far);
    let mut nodes = [cluster.node("a"), cluster.node("b")];

    let peer = cluster.subnet(&nodes[1], Overlay::V4);
    let route = Route {
        dst: peer.to_string(),
        gateway: Some(nodes[1].host.v4().to_string()),
        dev: Some("eth0".into()),
        kind: None,
        protocol: Some(PROTOCOL.into()),
        flags: vec![],
        metric: None,
    };
    heddle_lab::wait_until("the direct route", heddle_tests::SOON, || {
        let found = nodes[0].host.kernel_state().unwrap().route(&peer.to_string()).cloned();
        if found.as_ref() == Some(&route) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .unwrap();
    let tunnel = nodes[0].objects("flannel.1");
    assert_eq!((tunnel.routes.len(), tunnel.neighbours.len(), tunnel.fdb.len()), (1, 1, 1));
    assert!(tunnel.route("10.244.250.0/24").is_some());

    let [in_a, in_b] = nodes.each_ref().map(|node| node.host.container().unwrap());
    in_a.ping(in_b.addresses()[0], 56).unwrap();
    in_b.ping(in_a.addresses()[0], 56).unwrap();
    for node in &mut nodes {
        node.daemon().check_running().unwrap();
    }
}

#[test]
fn recreated_device_keeps_published_mac() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let published = |node: &Node| {
        let value: Value = serde_json::from_str(&cluster.lease(node).value).unwrap();
        value["BackendData"]["VtepMAC"].as_str().unwrap().to_owned()
    };
    let before = mac(&node, Overlay::V4);
    assert_eq!(published(&node), before);

    node.stop(heddle_lab::Signal::TERM);
    node.ip("link del flannel.1");
    cluster.restart(&mut node);
    assert_eq!(mac(&node, Overlay::V4), before);
    assert_eq!(published(&node), before);
}
