//! A well-behaved backend, which the plugins in `examples/` deviate from: each of them contains its
//! misbehaviour and nothing else.
//!
//! `tests/tests/hostile_plugins.rs` runs them in real daemons and checks the outcome for each.

#![forbid(unsafe_code)]

use std::marker::PhantomData;

pub use heddle_sdk;
use heddle_sdk::{
    Address, Advertisements, Backend, ConfigError, Family, FdbEntry, IpNet, Lease, LeaseFamily,
    Link, LinkKind, MacAddress, NetworkConfig, Node, NodePlan, Plan, Route, Sysctl, Tunnel, Vxlan,
};

/// Name of the backend's device.
pub const DEVICE: &str = "heddle1";

/// UDP port that the device receives on.
pub const PORT: u16 = 8472;

/// Backend data of the peer whose plan is tampered with.
pub const HOSTILE: &str = r#""hostile""#;

/// A backend's misbehaviour: changes to well-formed results.
pub trait Malice {
    /// Tampers with the node's advertisements.
    fn advertise(_scene: &Scene<'_>, _good: &mut Advertisements) {}

    /// Tampers with the node's plan.
    fn plan_node(_scene: &Scene<'_>, _good: &mut NodePlan) {}

    /// Tampers with a peer's plan, if its lease has the backend data [`HOSTILE`].
    fn plan_peer(_scene: &Scene<'_>, _peer: &Lease, _good: &mut Plan) {}
}

/// Input of a backend's function.
pub struct Scene<'a> {
    /// The cluster's network config.
    pub config: &'a NetworkConfig,
    /// This node.
    pub node: &'a Node,
    /// Lease of this node, once it has one.
    pub lease: Option<&'a Lease>,
}

impl Scene<'_> {
    /// Returns `Backend.Wish`, which selects one of a plugin's tricks.
    pub fn wish(&self) -> &str {
        let wish =
            self.config.backend.split(r#""Wish":""#).nth(1).and_then(|rest| rest.split('"').next());
        wish.unwrap_or_default()
    }

    /// Runs the trick if it is the selected one.
    pub fn play(&self, name: &str, trick: impl FnOnce()) {
        if self.wish() == name {
            trick();
        }
    }

    /// Adds another VXLAN device to the node's plan.
    pub fn plan_device(&self, good: &mut NodePlan, name: &str, port: u16) {
        good.plan.links.push(self.vxlan(name, port));
        good.plan.sysctls.push(no_routes(name));
    }

    /// Returns a VXLAN device of this node.
    pub fn vxlan(&self, name: &str, port: u16) -> Link {
        Link {
            name: name.into(),
            mtu: 1450,
            mac: Some(mac(&self.node.underlay.public_addresses[0].to_string())),
            kind: LinkKind::Vxlan(Vxlan {
                vni: 66,
                local: self.node.underlay.public_addresses[0],
                underlay: self.node.underlay.link.clone(),
                port,
                learning: false,
                gbp: false,
            }),
        }
    }
}

/// Returns the sysctl that is mandatory for every device.
fn no_routes(link: &str) -> Sysctl {
    Sysctl { link: link.into(), family: Family::V6, name: "accept_ra".into(), value: "0".into() }
}

/// Returns the MAC of the node with this public address.
pub fn mac(public_address: &str) -> MacAddress {
    MacAddress::derived(public_address)
}

/// Parses a network.
pub fn network(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// A backend that is well-behaved except for `T`.
pub struct Hostile<T>(PhantomData<T>);

impl<T: Malice> Backend for Hostile<T> {
    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        let mut good = Advertisements {
            backend_type: Some("hostile".into()),
            backend_data: vec![None; config.networks.len()],
        };
        T::advertise(&Scene { config, node, lease: None }, &mut good);
        Ok(good)
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let scene = Scene { config, node, lease: Some(lease) };
        let network = lease.families[0].subnet.network().into();
        let plan = Plan {
            links: vec![scene.vxlan(DEVICE, PORT)],
            sysctls: vec![no_routes(DEVICE)],
            addresses: vec![Address { link: DEVICE.into(), network }],
            ..Plan::default()
        };
        let mut good = NodePlan { plan, mtu: 1450 };
        T::plan_node(&scene, &mut good);
        Ok(good)
    }

    fn plan_peer(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, heddle_sdk::PeerError> {
        let LeaseFamily { subnet, public_address, backend_data } = &peer.families[0];
        let (end_point, link) = (mac(&public_address.to_string()), DEVICE.to_owned());
        let mut good = Plan {
            fdb_entries: vec![FdbEntry {
                link: link.clone(),
                mac: end_point,
                destination: *public_address,
            }],
            neighbours: vec![heddle_sdk::Neighbour {
                link,
                address: subnet.network(),
                mac: end_point,
            }],
            routes: vec![Route::onlink(*subnet, subnet.network(), DEVICE)],
            ..Plan::default()
        };
        if backend_data.as_deref() == Some(HOSTILE) {
            T::plan_peer(&Scene { config, node, lease: Some(lease) }, peer, &mut good);
        }
        Ok(good)
    }
}

/// Returns the plan of a well-behaved packet backend.
///
/// # Errors
///
/// If the interface's MTU is too small.
pub fn tunnel(config: &NetworkConfig, node: &Node, lease: &Lease) -> Result<NodePlan, ConfigError> {
    Tunnel { device: DEVICE.into(), port: PORT, overhead: 0 }.plan(config, node, lease)
}

/// Loops for ever.
pub fn hang() -> ! {
    loop {
        std::hint::black_box(());
    }
}

/// Allocates memory, 1 MiB at a time, up to 4 GiB.
pub fn hoard() {
    let hoard: Vec<_> = (0..4096).map(|_| std::hint::black_box(vec![1_u8; 1 << 20])).collect();
    std::hint::black_box(&hoard);
}

/// Recurses without end.
pub fn recurse(depth: u32) -> u32 {
    if std::hint::black_box(true) { recurse(depth + 1) + 1 } else { depth }
}

/// Exports a hostile backend under a name, with the capabilities a well-behaved one needs, or with
/// those given.
#[macro_export]
macro_rules! hostile {
    ($malice:ty, name = $name:literal) => {
        $crate::hostile!(
            $malice,
            name = $name,
            links = ["heddle*"],
            link_kinds = ["vxlan"],
            udp_ports = ["1024-65535"],
            sysctls = ["accept_ra"]
        );
    };
    ($malice:ty, name = $name:literal, $($capability:ident = $values:tt),+) => {
        $crate::heddle_sdk::export_backend!(
            $crate::Hostile<$malice>,
            name = $name,
            $($capability = $values),+
        );
    };
}

/// Exports a hostile backend with any text as its manifest.
#[macro_export]
macro_rules! hostile_with_manifest {
    ($malice:ty, $manifest:expr) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::heddle_sdk::export::Export<$crate::Hostile<$malice>>;
            $crate::heddle_sdk::bindings::backend::export!(
                Exported with_types_in $crate::heddle_sdk::bindings::backend
            );
            const MANIFEST: &str = $manifest;
            #[used]
            #[unsafe(link_section = "heddle:manifest")]
            static SECTION: [u8; MANIFEST.len()] = *MANIFEST.as_bytes().first_chunk().unwrap();
        };
    };
}
