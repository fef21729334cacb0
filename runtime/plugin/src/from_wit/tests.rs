use super::*;

fn empty() -> wit::Plan {
    wit::Plan {
        links: vec![],
        sysctls: vec![],
        addresses: vec![],
        routes: vec![],
        neighbours: vec![],
        fdb_entries: vec![],
    }
}

fn v4(address: [u8; 4]) -> wit::IpAddress {
    wit::IpAddress::Ipv4(address.into())
}

fn net(address: [u8; 4], prefix_length: u8) -> wit::IpNetwork {
    wit::IpNetwork { address: v4(address), prefix_length }
}

fn vxlan() -> wit::Link {
    wit::Link {
        name: "flannel.1".into(),
        mtu: 1450,
        mac: Some((2, 0, 0, 0, 0, 1)),
        kind: wit::LinkKind::Vxlan(wit::Vxlan {
            vni: 1,
            local: v4([192, 168, 0, 72]),
            underlay: "eth0".into(),
            port: 8472,
            learning: false,
            gbp: false,
        }),
    }
}

fn route(destination: wit::IpNetwork, gateway: wit::IpAddress) -> wit::Route {
    let link = "flannel.1".into();
    let next_hop = wit::NextHop { link, gateway: Some(gateway), onlink: true };
    wit::Route { destination, action: wit::RouteAction::Forward(next_hop) }
}

fn refused(build: impl FnOnce(&mut wit::Plan)) -> String {
    let mut wit_plan = empty();
    build(&mut wit_plan);
    plan(wit_plan, 64).unwrap_err().to_string()
}

#[test]
fn plan_valid_is_converted_unchanged() {
    let mut wit_plan = empty();
    wit_plan.links.push(vxlan());
    wit_plan.routes.push(route(net([10, 244, 36, 0], 24), v4([10, 244, 36, 0])));
    let objects = plan(wit_plan, 2).unwrap().objects;
    assert_eq!(
        objects.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "link flannel.1 type vxlan mtu 1450 address 02:00:00:00:00:01 id 1 local 192.168.0.72 dev eth0 dstport 8472 nolearning up",
            "route 10.244.36.0/24 via 10.244.36.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn link_invalid_is_refused() {
    let with = |change: fn(&mut wit::Link)| {
        refused(|plan| {
            let mut link = vxlan();
            change(&mut link);
            plan.links.push(link);
        })
    };
    assert_eq!(
        with(|link| link.mtu = 67),
        "link flannel.1: its MTU is 67: expected 68 to 65535 bytes"
    );
    assert_eq!(
        with(|link| link.mac = Some((1, 0, 0, 0, 0, 0))),
        "link flannel.1 with MAC 01:00:00:00:00:00: expected a unicast address"
    );
    assert_eq!(
        with(|link| link.name = "../../eth0\n".into()),
        "link on `../../eth0`: expected the name of a device: 1 to 15 bytes without `/`, `:`, white space or control characters"
    );
    assert!(with(|link| link.name = "heddle\u{1b}[2J".into()).contains("link on `heddle [2J`"));
    assert_eq!(
        with(|link| {
            let wit::LinkKind::Vxlan(vxlan) = &mut link.kind else { unreachable!() };
            vxlan.vni = 1 << 24;
        }),
        "link flannel.1: its VNI is 16777216: expected 0 to 16777215"
    );
}

fn tun(name: &str) -> wit::Link {
    let local = vec![v4([192, 168, 0, 72]), wit::IpAddress::Ipv6((0xfd00, 0, 0, 0, 0, 0, 0, 1))];
    let kind = wit::LinkKind::Tun(wit::Tun { local, port: 8285 });
    wit::Link { name: name.into(), mtu: 1472, mac: None, kind }
}

fn with_links(links: Vec<wit::Link>) -> Result<NodePlan, String> {
    let plan = wit::Plan { links, ..empty() };
    node_plan(wit_backend::NodePlan { plan, mtu: 1472 }, 64).map_err(|error| error.to_string())
}

#[test]
fn tun_device_yields_a_tunnel() {
    let plan = with_links(vec![vxlan(), tun("flannel0")]).unwrap();
    assert_eq!(plan.plan.objects[1].to_string(), "link flannel0 type tun mtu 1472 up");
    let local = vec!["192.168.0.72".parse().unwrap(), "fd00::1".parse().unwrap()];
    let link = "flannel0".parse().unwrap();
    assert_eq!(plan.tunnel, Some(Tunnel { link, local, port: 8285, overhead: 0 }));
    assert_eq!(with_links(vec![vxlan()]).unwrap().tunnel, None);
}

#[test]
fn tun_device_invalid_is_refused() {
    let with = |change: fn(&mut wit::Link, &mut wit::Tun)| {
        let mut link = tun("flannel0");
        let wit::LinkKind::Tun(mut tun) = link.kind.clone() else { unreachable!() };
        change(&mut link, &mut tun);
        with_links(vec![wit::Link { kind: wit::LinkKind::Tun(tun), ..link }]).unwrap_err()
    };
    assert_eq!(with(|_, tun| tun.port = 0), "link flannel0: its port is 0: expected 1 to 65535");
    assert_eq!(
        with(|link, _| link.mac = Some((2, 0, 0, 0, 0, 1))),
        "link flannel0: it has a MAC address: expected none, because a TUN device has none"
    );
    assert_eq!(
        with_links(vec![tun("flannel0"), tun("flannel1")]).unwrap_err(),
        "link flannel1: it is the second TUN device: expected one at most"
    );
}

#[test]
fn overhead_beyond_limit_is_refused() {
    assert_eq!(overhead(1024), Ok(1024));
    assert_eq!(
        overhead(1025).unwrap_err().to_string(),
        "overhead 1025: expected at most 1024 bytes"
    );
}

#[test]
fn route_invalid_is_refused() {
    let with = |destination, gateway| refused(|plan| plan.routes.push(route(destination, gateway)));
    assert_eq!(
        with(net([10, 0, 0, 0], 33), v4([10, 0, 0, 1])),
        "route 10.0.0.0/33: expected a prefix of at most 32 bits"
    );
    assert_eq!(
        with(net([10, 0, 0, 1], 24), v4([10, 0, 0, 1])),
        "route 10.0.0.1/24: bits after the prefix must be zero: expected 10.0.0.0/24"
    );
    assert_eq!(
        with(net([10, 0, 0, 0], 24), wit::IpAddress::Ipv6((0xfd00, 0, 0, 0, 0, 0, 0, 1))),
        "route 10.0.0.0/24 via fd00::1: expected a gateway of the destination's family"
    );
}

#[test]
fn sysctl_invalid_is_refused() {
    let with = |name: &str, value: &str| {
        let sysctl = wit::Sysctl {
            link: "flannel.1".into(),
            family: wit::IpFamily::Ipv6,
            name: name.into(),
            value: value.into(),
        };
        refused(|plan| plan.sysctls.push(sysctl))
    };
    assert_eq!(
        with("../../../kernel/core_pattern", "1"),
        "sysctl ipv6.conf.flannel.1.../../../kernel/core_pattern = 1: expected a name of lower-case letters, digits and `_`"
    );
    assert!(with("accept_ra", "0\n1").contains("expected a value"));
    assert!(with("accept_ra", "").contains("expected a value"));
    assert!(with("accept_ra", &"0".repeat(65)).contains("expected a value"));
}

#[test]
fn multicast_mac_is_refused_everywhere() {
    let link = || "flannel.1".to_owned();
    let (mac, address) = ((0xff, 0xff, 0xff, 0xff, 0xff, 0xff), v4([10, 0, 0, 1]));
    let neighbour = wit::Neighbour { link: link(), address, mac };
    assert!(refused(|plan| plan.neighbours.push(neighbour)).starts_with("neighbour with MAC"));
    let entry = wit::FdbEntry { link: link(), mac, destination: address };
    assert!(refused(|plan| plan.fdb_entries.push(entry)).starts_with("fdb entry with MAC"));
}

#[test]
fn object_planned_twice_is_refused() {
    let twice = refused(|plan| {
        plan.routes.push(route(net([10, 0, 0, 0], 24), v4([10, 0, 0, 1])));
        plan.routes.push(route(net([10, 0, 0, 0], 24), v4([10, 0, 0, 2])));
    });
    assert_eq!(twice, "route 10.0.0.0/24: planned more than once");
}

#[test]
fn plan_with_too_many_objects_is_refused() {
    let crowd = refused(|plan| {
        for last in 0..65 {
            plan.routes.push(route(net([10, 0, last, 0], 24), v4([10, 0, 0, 1])));
        }
    });
    assert_eq!(crowd, "65 objects: expected at most 64");
}

#[test]
fn advertisements_unfit_for_a_lease_are_refused() {
    let config = heddle_core::config::NetworkConfig::parse(br#"{"Network":"10.0.0.0/8"}"#);
    let networks = config.unwrap().networks;
    let with = |kind: &str, data: &[&str]| {
        let families = data
            .iter()
            .map(|data| wit_backend::Advertisement { backend_data: Some((*data).to_owned()) });
        let wit = wit_backend::Advertisements {
            backend_type: Some(kind.to_owned()),
            families: families.collect(),
        };
        advertisements(wit, &networks).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(
        with("vxlan", &[r#"{"VNI":1}"#]),
        Ok((Some("vxlan".into()), PerFamily { v4: Some(r#"{"VNI":1}"#.into()), v6: None }))
    );
    assert!(with("vxlan", &["{"]).unwrap_err().contains("expected JSON"));
    assert!(with("vx\"lan", &["{}"]).unwrap_err().contains("expected 1 to 32 letters"));
    assert!(with("vxlan", &[]).unwrap_err().contains("expected 1, as in the network config"));
    let long = format!("\"{}\"", "x".repeat(MAX_BACKEND_DATA));
    assert!(with("vxlan", &[&long]).unwrap_err().contains("expected at most 8192"));
}
