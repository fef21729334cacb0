//! The `alloc` backend: assigns the node a lease, and nothing else (flannel's `pkg/backend/alloc`).
//! Another program has to carry packets to other hosts.

#![forbid(unsafe_code)]

use heddle_sdk::*;

/// The backend.
pub struct AllocBackend;

impl Backend for AllocBackend {
    const KEYS: Option<&'static [&'static str]> = Some(&[]);

    fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        // As in flannel, the lease has no backend type.
        Ok(Advertisements { backend_type: None, backend_data: vec![None; config.networks.len()] })
    }

    fn plan_node(_: &NetworkConfig, node: &Node, _: &Lease) -> Result<NodePlan, ConfigError> {
        Ok(NodePlan { plan: Plan::default(), mtu: node.underlay.packet_mtu() })
    }

    fn plan_peer(_: &NetworkConfig, _: &Node, _: &Lease, peer: &Lease) -> Result<Plan, PeerError> {
        match peer.backend_type.as_deref() {
            None | Some("alloc") => Ok(Plan::default()),
            Some(_) => Err(PeerError::other_backend(peer)),
        }
    }
}

export_backend!(AllocBackend, name = "alloc");

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetworkConfig {
        let network = |network: &str, subnet_length| OverlayNetwork {
            network: network.parse().unwrap(),
            subnet_length,
        };
        NetworkConfig {
            networks: vec![network("10.244.0.0/16", 24), network("fc00::/48", 64)],
            backend: r#"{"Type":"alloc"}"#.into(),
        }
    }

    fn node(mtu: u32) -> Node {
        let underlay = Underlay {
            link: "eth0".into(),
            mtu,
            addresses: vec![],
            public_addresses: vec!["192.168.0.72".parse().unwrap()],
        };
        Node { id: "7f0c".into(), underlay, links: vec![] }
    }

    fn lease(backend_type: Option<&str>) -> Lease {
        let family = LeaseFamily {
            subnet: "10.244.8.0/24".parse().unwrap(),
            public_address: "192.168.0.72".parse().unwrap(),
            backend_data: None,
        };
        Lease { families: vec![family], backend_type: backend_type.map(str::to_owned) }
    }

    #[test]
    fn lease_has_no_more_fields_than_flannel() {
        let expected = Advertisements { backend_type: None, backend_data: vec![None, None] };
        assert_eq!(AllocBackend::advertise(&config(), &node(1500)), Ok(expected));
    }

    #[test]
    fn plan_is_empty_with_mtu_of_interface() {
        let plan = |mtu| AllocBackend::plan_node(&config(), &node(mtu), &lease(None)).unwrap();
        assert_eq!(plan(1500), NodePlan { plan: Plan::default(), mtu: 1500 });
        // The loopback interface's MTU: no packet is that long.
        assert_eq!(plan(65536).mtu, 65535);
    }

    #[test]
    fn peer_has_empty_plan_unless_of_other_backend() {
        let plan =
            |kind| AllocBackend::plan_peer(&config(), &node(1500), &lease(None), &lease(kind));
        assert_eq!(plan(None), Ok(Plan::default()));
        assert_eq!(plan(Some("alloc")), Ok(Plan::default()));
        assert_eq!(plan(Some("vxlan")), Err(PeerError::OtherBackend("vxlan".into())));
    }
}
