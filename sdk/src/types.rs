//! The records of `wit/v0.1/types.wit` with everyday types. That file defines them in detail.
//!
//! The host has similar types in a crate of its own. They are not shared: a plugin depends on the
//! WIT only, so that either side can change without the other.

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
    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the family of a network.
    pub fn of_network(network: IpNet) -> Self {
        Self::of(network.addr())
    }

    /// Returns the length of an IP header without options, in bytes: 20 or 40.
    pub fn header_length(self) -> u32 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// Returns the smallest MTU of the family, in bytes: 68 (RFC 791, section 3.2) or 1280 (RFC
    /// 8200, section 5).
    pub fn least_mtu(self) -> u32 {
        match self {
            Self::V4 => 68,
            Self::V6 => 1280,
        }
    }
}

/// The overlay in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayNetwork {
    /// Network of the whole overlay.
    pub network: IpNet,
    /// Prefix length of each node's subnet.
    pub subnet_length: u8,
}

/// The cluster's network config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Networks, one per enabled family, IPv4 first. Never empty.
    pub networks: Vec<OverlayNetwork>,
    /// The `Backend` object as JSON text. See [`json::Object`](crate::json::Object).
    pub backend: String,
}

impl NetworkConfig {
    /// Reads the backend's keys into a type of the plugin: see [`json::read`](crate::json::read).
    ///
    /// # Errors
    ///
    /// If a key is not what the type expects.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        json::read("Backend", &self.backend)
    }

    /// Returns the `Backend` object, restricted to the keys that a backend declares.
    ///
    /// # Errors
    ///
    /// If it is not a JSON object.
    pub fn backend_of<B: crate::Backend>(&self) -> Result<json::Object<'_>, ConfigError> {
        Ok(json::Object::parse("Backend", &self.backend)?.with_keys(B::KEYS))
    }

    /// Returns the enabled families, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.networks.iter().map(|overlay| Family::of_network(overlay.network))
    }
}

/// The interface that carries the overlay's packets between hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Name of the interface.
    pub link: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses of the interface, with the prefix that is directly connected.
    pub addresses: Vec<IpNet>,
    /// Addresses under which peers reach this node: one per enabled family, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
}

impl Underlay {
    /// Returns the address under which peers reach this node in a family.
    pub fn public_address(&self, family: Family) -> Option<IpAddr> {
        self.public_addresses.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Returns the size of the largest packet that can leave through the interface. It is 65,535
    /// bytes at most, although the loopback interface has a larger MTU.
    pub fn packet_mtu(&self) -> u32 {
        self.mtu.min(65_535)
    }

    /// Returns the source address of packets to peers that know this node by a public address: that
    /// one if the interface has it, otherwise (behind NAT) the interface's own.
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

    /// Returns true if the interface has the address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.addr() == address)
    }

    /// Returns true if the address is reachable through the interface without a gateway.
    pub fn is_neighbour(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.contains(&address))
    }
}

/// A device that existed when the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingLink {
    /// Name of the device.
    pub name: String,
    /// Kind, as the kernel names it.
    pub kind: String,
    /// MAC address, if it has one.
    pub mac: Option<MacAddress>,
}

/// This node, in its state when the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Stable identity of the node.
    pub id: String,
    /// Interface through which other hosts reach it.
    pub underlay: Underlay,
    /// Devices of the kinds that can be planned.
    pub links: Vec<ExistingLink>,
}

impl Node {
    /// Returns a MAC address for a device of this node. It is derived from the node's identity and
    /// address and from the device's name, so that a recreated device has the same one and cloned
    /// machines have different ones.
    pub fn device_mac(&self, family: Family, device: &str) -> MacAddress {
        let public = self.underlay.public_address(family).map(|address| address.to_string());
        MacAddress::derived(&format!("{}\0{}\0{device}", self.id, public.unwrap_or_default()))
    }
}

/// One family of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFamily {
    /// Part of the overlay that belongs to the node.
    pub subnet: IpNet,
    /// Address under which the node is reachable.
    pub public_address: IpAddr,
    /// `BackendData` or `BackendV6Data` as JSON text. Written by another node: not trusted.
    pub backend_data: Option<String>,
}

/// The assignment of subnets to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Parts per family, IPv4 first. Never empty.
    pub families: Vec<LeaseFamily>,
    /// `BackendType`. Absent in leases of flannel's udp backend.
    pub backend_type: Option<String>,
}

impl Lease {
    /// Returns the part for one family.
    pub fn family(&self, family: Family) -> Option<&LeaseFamily> {
        self.families.iter().find(|part| Family::of_network(part.subnet) == family)
    }

    /// Returns the parts of a peer's lease in those families that this node's own lease has as
    /// well.
    ///
    /// # Errors
    ///
    /// If the peer publishes an address of this node.
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
    /// Reads the backend data of the node into a type of the plugin: see
    /// [`json::read`](crate::json::read).
    ///
    /// # Errors
    ///
    /// If there is no data, or a member is not what the type expects.
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

    /// Returns the family of the subnet.
    pub fn family(&self) -> Family {
        Family::of_network(self.subnet)
    }
}

/// The backend's part of a node's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisements {
    /// `BackendType`; None leaves the field out.
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
    /// Interface that the outer packets leave through.
    pub underlay: String,
    /// UDP destination port of the outer packets.
    pub port: u16,
    /// True if the device learns peers from the packets it receives.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
}

/// A TUN device and the UDP sockets behind it. Only a [`PacketBackend`](crate::PacketBackend) can
/// request one, and at most one.
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
    /// Name of at most 15 bytes.
    pub name: String,
    /// MTU in bytes, 68 to 65,535.
    pub mtu: u32,
    /// MAC address; None lets the kernel choose one. A TUN device has none.
    pub mac: Option<MacAddress>,
    /// Kind of the device.
    pub kind: LinkKind,
}

/// An address that a planned device should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Device of the address.
    pub link: String,
    /// Address, and the prefix that is directly connected through it.
    pub network: IpNet,
}

/// Next hop of packets for a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface that the packets leave through.
    pub link: String,
    /// Gateway; None if the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// True if the gateway is assumed to be on the link.
    pub onlink: bool,
}

/// Action for packets to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Forward them to the next hop.
    Forward(NextHop),
    /// Drop them silently.
    Blackhole,
}

/// A route in the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination of the route. Host bits are zero.
    pub destination: IpNet,
    /// Action for the packets.
    pub action: RouteAction,
}

impl Route {
    /// Returns the route `DESTINATION dev LINK`.
    pub fn dev(destination: IpNet, link: &str) -> Self {
        Self::forward(destination, None, link, false)
    }

    /// Returns the route `DESTINATION via GATEWAY dev LINK`.
    pub fn via(destination: IpNet, gateway: IpAddr, link: &str) -> Self {
        Self::forward(destination, Some(gateway), link, false)
    }

    /// Returns the route `DESTINATION via GATEWAY dev LINK onlink`.
    pub fn onlink(destination: IpNet, gateway: IpAddr, link: &str) -> Self {
        Self::forward(destination, Some(gateway), link, true)
    }

    fn forward(destination: IpNet, gateway: Option<IpAddr>, link: &str, onlink: bool) -> Self {
        let next_hop = NextHop { link: link.to_owned(), gateway, onlink };
        Self { destination, action: RouteAction::Forward(next_hop) }
    }
}

/// A permanent neighbour entry: ARP for IPv4, neighbour discovery for IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Device of the neighbour.
    pub link: String,
    /// IP address of the neighbour.
    pub address: IpAddr,
    /// MAC address of the neighbour.
    pub mac: MacAddress,
}

/// A permanent entry of a VXLAN device's forwarding database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub link: String,
    /// MAC of the frames to forward.
    pub mac: MacAddress,
    /// Address of the VTEP that they are sent to.
    pub destination: IpAddr,
}

/// A sysctl of one device: `net.<family>.conf.<link>.<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Device of the sysctl.
    pub link: String,
    /// Family, which selects the tree.
    pub family: Family,
    /// Last component of the name, such as `accept_ra`.
    pub name: String,
    /// Desired value.
    pub value: String,
}

/// Desired kernel state. The order has no meaning; naming an object twice is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Planned devices.
    pub links: Vec<Link>,
    /// Sysctls of devices.
    pub sysctls: Vec<Sysctl>,
    /// Addresses on devices.
    pub addresses: Vec<Address>,
    /// Planned routes.
    pub routes: Vec<Route>,
    /// Permanent neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding database entries.
    pub fdb_entries: Vec<FdbEntry>,
}

/// The part of the plan that does not depend on peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Objects of the plan.
    pub plan: Plan,
    /// MTU for containers' interfaces, in bytes.
    pub mtu: u32,
}

/// An error about a key of the network config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Key, such as `Backend.VNI`.
    pub key: String,
    /// The problem, and the expected value.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Reason why there is no plan for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The lease belongs to this other backend, so nothing should be programmed.
    OtherBackend(String),
    /// A field of the lease is wrong. The text names the field and the expected value.
    Invalid(String),
}

impl PeerError {
    /// Returns the error for a lease that belongs to another backend. A lease that names none
    /// belongs to `udp`, for which flannel leaves the name out.
    pub fn other_backend(peer: &Lease) -> Self {
        Self::OtherBackend(peer.backend_type.as_deref().unwrap_or("udp").to_owned())
    }
}

impl From<ConfigError> for PeerError {
    /// An error in the JSON of a peer's lease makes the peer invalid.
    fn from(error: ConfigError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Input of an emitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The cluster's network config.
    pub config: NetworkConfig,
    /// This node's own lease.
    pub lease: Lease,
    /// MTU for containers' interfaces, in bytes.
    pub mtu: u32,
    /// True if the daemon masquerades packets that leave the overlay.
    pub ip_masq: bool,
}

/// An option given by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the setting.
    pub name: String,
    /// Value of the setting.
    pub value: String,
}

impl Setting {
    /// Parses the value of a setting that is `true` or `false`.
    ///
    /// # Errors
    ///
    /// If it is something else; the message names the setting.
    pub fn flag(&self) -> Result<bool, String> {
        self.value.parse().map_err(|_| self.error("expected true or false"))
    }

    /// Returns an error about the value: ``setting `key` is "1A": RULE``.
    pub fn error(&self, rule: impl fmt::Display) -> String {
        format!("setting `{}` is {:?}: {rule}", self.name, self.value)
    }

    /// Returns the error for a setting that the emitter does not have: ``setting `pth` is unknown:
    /// expected `path` ``.
    pub fn unknown(&self, known: &[&str]) -> String {
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        format!("setting `{}` is unknown: expected {}", self.name, known.join(", "))
    }
}

/// A file that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path, without `..`.
    pub path: String,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// Content of the file.
    pub contents: Vec<u8>,
}
