//! The records of `wit/v0.1/types.wit` in everyday types. What they mean in detail stands there.
//!
//! The host has types much like these in a crate of its own. They are not shared: a plugin knows the WIT and nothing of
//! the host, so that either side can change without the other.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;

use crate::{MacAddress, json};

/// One of the two address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a network.
    pub fn of_network(network: IpNet) -> Self {
        Self::of(network.addr())
    }

    /// The length of an IP header without options, in bytes: 20 or 40.
    pub fn header_length(self) -> u32 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// The smallest MTU that the family works with, in bytes: 68 (RFC 791, section 3.2) or 1280 (RFC 8200, section 5).
    pub fn least_mtu(self) -> u32 {
        match self {
            Self::V4 => 68,
            Self::V6 => 1280,
        }
    }
}

/// One family of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayNetwork {
    /// The whole overlay.
    pub network: IpNet,
    /// The length of each node's subnet, in bits.
    pub subnet_length: u8,
}

/// The cluster's network config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// One per enabled family, IPv4 first. Never empty.
    pub networks: Vec<OverlayNetwork>,
    /// The `Backend` object as JSON text. See [`json::Object`](crate::json::Object).
    pub backend: String,
}

impl NetworkConfig {
    /// The backend's keys, in a type of the plugin's own: see [`json::read`](crate::json::read).
    ///
    /// # Errors
    ///
    /// A key is not what the type expects.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        json::read("Backend", &self.backend)
    }

    /// The enabled families, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.networks.iter().map(|overlay| Family::of_network(overlay.network))
    }
}

/// The interface that carries the overlay's packets between hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its name.
    pub link: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The addresses on it, with the prefix that is directly connected.
    pub addresses: Vec<IpNet>,
    /// Where peers reach this node: one per enabled family, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
}

impl Underlay {
    /// Where peers reach this node in a family.
    pub fn public_address(&self, family: Family) -> Option<IpAddr> {
        self.public_addresses.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// The longest packet that can leave through the interface. No packet is longer than 65,535 bytes, though the
    /// loopback interface's MTU is.
    pub fn packet_mtu(&self) -> u32 {
        self.mtu.min(65_535)
    }

    /// The source address of packets to peers that know this node by a public address: that one, or behind NAT, where
    /// the interface does not have it, the interface's own.
    pub fn local_address(&self, public: IpAddr) -> IpAddr {
        let link_local = |address: IpAddr| match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if self.has_address(public) {
            return public;
        }
        let own = self.addresses.iter().map(IpNet::addr);
        own.filter(|address| Family::of(*address) == Family::of(public))
            .min_by_key(|address| link_local(*address))
            .unwrap_or(public)
    }

    /// Whether an address is the interface's own.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.addr() == address)
    }

    /// Whether an address is reached through the interface without a gateway.
    pub fn is_neighbour(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.contains(&address))
    }
}

/// A device that was there when the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingLink {
    /// Its name.
    pub name: String,
    /// The kernel's name of its kind.
    pub kind: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
}

/// This node, as it was when the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its stable identity.
    pub id: String,
    /// How other hosts reach it.
    pub underlay: Underlay,
    /// Devices of the kinds that can be planned.
    pub links: Vec<ExistingLink>,
}

impl Node {
    /// An Ethernet address for a device of this node. It follows from who and where the node is and from the device's
    /// name, so that it comes back after a loss and cloned machines differ.
    pub fn device_mac(&self, family: Family, device: &str) -> MacAddress {
        let public = self.underlay.public_address(family).map(|address| address.to_string());
        MacAddress::derived(&format!("{}\0{}\0{device}", self.id, public.unwrap_or_default()))
    }
}

/// One family of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFamily {
    /// The node's own part of the overlay.
    pub subnet: IpNet,
    /// Where the node is reached.
    pub public_address: IpAddr,
    /// `BackendData` or `BackendV6Data` as JSON text. Written by another node: not trusted.
    pub backend_data: Option<String>,
}

/// Which subnet belongs to which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// One per family of the lease, IPv4 first. Never empty.
    pub families: Vec<LeaseFamily>,
    /// `BackendType`. Absent in leases of flannel's udp backend.
    pub backend_type: Option<String>,
}

impl Lease {
    /// The part for one family.
    pub fn family(&self, family: Family) -> Option<&LeaseFamily> {
        self.families.iter().find(|part| Family::of_network(part.subnet) == family)
    }

    /// The parts of a peer's lease in the families that this node's own lease has, too.
    ///
    /// # Errors
    ///
    /// The peer says that it is reached at an address of this node.
    pub fn common_families<'p>(
        &self,
        node: &Node,
        peer: &'p Lease,
    ) -> Result<Vec<&'p LeaseFamily>, PeerError> {
        let mut common = Vec::new();
        for own in &self.families {
            let Some(part) = peer.family(Family::of_network(own.subnet)) else { continue };
            let public = part.public_address;
            if own.public_address == public || node.underlay.public_addresses.contains(&public) {
                return Err(PeerError::Invalid(format!(
                    "its public address {public} is this node's own: expected the address of another node"
                )));
            }
            common.push(part);
        }
        Ok(common)
    }
}

impl LeaseFamily {
    /// What the node's backend says of itself, in a type of the plugin's own: see [`json::read`](crate::json::read).
    ///
    /// # Errors
    ///
    /// It says nothing, or a member is not what the type expects.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, PeerError> {
        let field = match self.family() {
            Family::V4 => "BackendData",
            Family::V6 => "BackendV6Data",
        };
        match &self.backend_data {
            Some(data) => Ok(json::read(field, data)?),
            None => Err(PeerError::Invalid(format!("{field} is missing"))),
        }
    }

    /// Which family it is.
    pub fn family(&self) -> Family {
        Family::of_network(self.subnet)
    }
}

/// What a node says of itself in its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisements {
    /// `BackendType`; none leaves the field out.
    pub backend_type: Option<String>,
    /// JSON text for `BackendData` and `BackendV6Data`: one per enabled family, in the order of
    /// [`NetworkConfig::networks`].
    pub backend_data: Vec<Option<String>>,
}

/// A VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier, 0 to 2^24 − 1.
    pub vni: u32,
    /// Source address of the outer packets.
    pub local: IpAddr,
    /// The interface they leave through.
    pub underlay: String,
    /// Their UDP destination port.
    pub port: u16,
    /// Whether the device learns peers from the packets it receives.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
}

/// A TUN device and the UDP sockets behind it. Only a [`PacketBackend`](crate::PacketBackend) can ask for it, and for
/// one at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tun {
    /// Source addresses of the datagrams: one per enabled family, IPv4 first.
    pub local: Vec<IpAddr>,
    /// UDP port of this node and of its peers.
    pub port: u16,
}

/// The kinds of device that can be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkKind {
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// A TUN device.
    Tun(Tun),
}

/// A network device that should exist and be up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// At most 15 bytes.
    pub name: String,
    /// In bytes, 68 to 65,535.
    pub mtu: u32,
    /// Its Ethernet address; none: whatever the kernel gives it. A TUN device has none.
    pub mac: Option<MacAddress>,
    /// What it is.
    pub kind: LinkKind,
}

/// An address that a planned link should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub link: String,
    /// The address and the prefix that is directly connected by it.
    pub network: IpNet,
}

/// Where packets for a destination go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface they leave through.
    pub link: String,
    /// The router; none where the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The gateway is taken to be on the link.
    pub onlink: bool,
}

/// What happens to packets for a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// They go out.
    Forward(NextHop),
    /// They are dropped in silence.
    Blackhole,
}

/// A route in the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which packets it is for. Bits after the prefix are zero.
    pub destination: IpNet,
    /// What happens to them.
    pub action: RouteAction,
}

impl Route {
    /// `DESTINATION dev LINK`.
    pub fn dev(destination: IpNet, link: &str) -> Self {
        Self::forward(destination, None, link, false)
    }

    /// `DESTINATION via GATEWAY dev LINK`.
    pub fn via(destination: IpNet, gateway: IpAddr, link: &str) -> Self {
        Self::forward(destination, Some(gateway), link, false)
    }

    /// `DESTINATION via GATEWAY dev LINK onlink`.
    pub fn onlink(destination: IpNet, gateway: IpAddr, link: &str) -> Self {
        Self::forward(destination, Some(gateway), link, true)
    }

    fn forward(destination: IpNet, gateway: Option<IpAddr>, link: &str, onlink: bool) -> Self {
        let next_hop = NextHop { link: link.to_owned(), gateway, onlink };
        Self { destination, action: RouteAction::Forward(next_hop) }
    }
}

/// A permanent neighbour: ARP for IPv4, neighbour discovery for IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The device.
    pub link: String,
    /// The neighbour's address …
    pub address: IpAddr,
    /// … and its Ethernet address.
    pub mac: MacAddress,
}

/// A permanent entry of a VXLAN device's forwarding database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub link: String,
    /// Frames for this address …
    pub mac: MacAddress,
    /// … go to the VTEP at this one.
    pub destination: IpAddr,
}

/// A setting of one device: `net.<family>.conf.<link>.<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The device.
    pub link: String,
    /// Which tree.
    pub family: Family,
    /// The last component, `accept_ra`.
    pub name: String,
    /// What it should be.
    pub value: String,
}

/// Kernel state that should hold. Order means nothing; naming an object twice is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Devices.
    pub links: Vec<Link>,
    /// Settings of devices.
    pub sysctls: Vec<Sysctl>,
    /// Addresses on devices.
    pub addresses: Vec<Address>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Permanent neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding database entries.
    pub fdb_entries: Vec<FdbEntry>,
}

/// The part of the plan that does not depend on peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// The objects.
    pub plan: Plan,
    /// The MTU for containers' interfaces, in bytes.
    pub mtu: u32,
}

/// A complaint about a key of the network config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, `Backend.VNI`.
    pub key: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Why there is no plan for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The lease is not for this backend, so nothing should be programmed. Says what it is for.
    OtherBackend(String),
    /// Something in the lease is wrong. Names the field and says what would be right.
    Invalid(String),
}

impl PeerError {
    /// The peer's lease is for the backend that it names; where it names none, for `udp`, which flannel leaves out.
    pub fn other_backend(peer: &Lease) -> Self {
        Self::OtherBackend(peer.backend_type.as_deref().unwrap_or("udp").to_owned())
    }
}

impl From<ConfigError> for PeerError {
    /// What is wrong with JSON in a peer's lease is wrong with the peer.
    fn from(error: ConfigError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// What an emitter is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The cluster's network config.
    pub config: NetworkConfig,
    /// This node's own lease.
    pub lease: Lease,
    /// For containers' interfaces, in bytes.
    pub mtu: u32,
    /// Whether the daemon masquerades what leaves the overlay.
    pub ip_masq: bool,
}

/// An option given by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Setting {
    /// The value of a setting that is `true` or `false`.
    ///
    /// # Errors
    ///
    /// It is something else; the text names the setting.
    pub fn flag(&self) -> Result<bool, String> {
        self.value.parse().map_err(|_| self.error("expected true or false"))
    }

    /// An error about the value: ``setting `key` is "1A": RULE``.
    pub fn error(&self, rule: impl fmt::Display) -> String {
        format!("setting `{}` is {:?}: {rule}", self.name, self.value)
    }

    /// The error about a setting that the emitter does not have: ``setting `pth` is unknown: expected `path` ``.
    pub fn unknown(&self, known: &[&str]) -> String {
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        format!("setting `{}` is unknown: expected {}", self.name, known.join(", "))
    }
}

/// A file that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute, without `..`.
    pub path: String,
    /// Permission bits, `0o644`.
    pub mode: u32,
    /// What stands in it.
    pub contents: Vec<u8>,
}
