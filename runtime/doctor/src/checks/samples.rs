//! A sample host and plan, for the tests of the checks.

use heddle_core::address::{Family, LinkName};
use heddle_core::interface::Interface;
use heddle_core::lease::{Lease, LeaseFamily, LeaseKey};
use heddle_core::node::Underlay;
use heddle_core::object::{Link, LinkKind, Object, Plan, Vxlan};
use heddle_kernel::{HostLink, VxlanPort};
use heddle_plugin::{NodePlan, Tunnel};
use ipnet::IpNet;

pub(super) const ALIAS: &str = "heddle /coreos.com/network";

pub(super) fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Returns the subnet of this node.
pub(super) fn subnets() -> Option<LeaseKey> {
    Some("10.244.8.0-24".parse().unwrap())
}

pub(super) fn underlay() -> Underlay {
    Underlay {
        link: name("eth0"),
        mtu: 1500,
        addresses: vec![net("192.168.0.72/24")],
        public_addresses: ["192.168.0.72".parse::<std::net::IpAddr>().unwrap()].into(),
    }
}

pub(super) fn interface(device: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name(device),
        mtu: 1500,
        up: true,
        loopback: device == "lo",
        kind: String::new(),
        mac: None,
        local: None,
        alias: String::new(),
        unusable: vec![],
        addresses: addresses.iter().map(|address| net(address)).collect(),
    }
}

/// Returns a hardware device.
pub(super) fn link(device: &str) -> HostLink {
    HostLink {
        name: name(device),
        kind: String::new(),
        mtu: 1500,
        up: true,
        alias: String::new(),
        master: None,
        vxlan: None,
    }
}

/// Returns a VXLAN device that receives IPv4.
pub(super) fn vxlan_link(device: &str, vni: u32, port: u16) -> HostLink {
    let vxlan = VxlanPort { vni, port, families: vec![Family::V4], gbp: false, special: false };
    HostLink { kind: "vxlan".into(), vxlan: Some(vxlan), ..link(device) }
}

/// Returns the plan of vxlan: VNI 1, port 8472.
pub(super) fn vxlan_plan(mtu: u32) -> NodePlan {
    let vxlan = Vxlan {
        vni: 1,
        local: "192.168.0.72".parse().unwrap(),
        underlay: name("eth0"),
        port: 8472,
        learning: false,
        gbp: false,
    };
    plan(Link { name: name("flannel.1"), mtu, mac: None, up: true, kind: LinkKind::Vxlan(vxlan) })
}

/// Returns the plan of udp: port 8285.
pub(super) fn tunnel_plan() -> NodePlan {
    let device = name("flannel0");
    let link = Link { name: device, mtu: 1472, mac: None, up: true, kind: LinkKind::Tun };
    let local = vec!["192.168.0.72".parse().unwrap()];
    let tunnel = Tunnel { link: device, local, port: 8285, overhead: 0 };
    NodePlan { tunnel: Some(tunnel), ..plan(link) }
}

/// Returns the plan of host-gw.
pub(super) fn empty_plan() -> NodePlan {
    NodePlan { plan: Plan::default(), tunnel: None, mtu: 1500 }
}

fn plan(link: Link) -> NodePlan {
    NodePlan { mtu: link.mtu, plan: Plan { objects: vec![Object::Link(link)] }, tunnel: None }
}

/// Returns the lease of 10.244.36.0/24 at 192.168.0.99.
pub(super) fn peer() -> Lease {
    Lease {
        key: "10.244.36.0-24".parse().unwrap(),
        families: [LeaseFamily {
            subnet: net("10.244.36.0/24"),
            public_address: "192.168.0.99".parse().unwrap(),
            backend_data: None,
        }]
        .into(),
        backend_type: Some("vxlan".into()),
        node_id: None,
        node_name: None,
    }
}
