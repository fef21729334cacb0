//! The kernel objects that a plan is made of, and the names they are told apart by.
//!
//! [`Object`] is one desired or observed thing; [`ObjectKey`] is the part of it that the kernel tells things
//! apart by. Two objects with the same key cannot both exist. Keys are ordered by what has to exist first:
//! devices before their addresses, addresses before routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Family, LinkName, MacAddress};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: LinkName,
    /// In bytes.
    pub mtu: u32,
    /// Its Ethernet address. Desired without one: whatever the kernel gives it.
    pub mac: Option<MacAddress>,
    /// Whether it is administratively up (`IFF_UP`). Desired links always are.
    pub up: bool,
    /// What it is.
    pub kind: LinkKind,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// A TUN device (`linux/if_tun.h`): IP packets to and from a program, which makes it and with which it goes.
    Tun,
    /// A kind that cannot be planned, by the kernel's name for it (empty: hardware). Only ever observed.
    Other(String),
}

impl LinkKind {
    /// The kernel's name of the kind (`IFLA_INFO_KIND`).
    pub fn name(&self) -> &str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::Tun => "tun",
            Self::Other(name) => name,
        }
    }
}

/// The options of a VXLAN device (RFC 7348; `linux/if_link.h`, `IFLA_VXLAN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Source address of the outer packets.
    pub local: IpAddr,
    /// The interface they leave through.
    pub underlay: LinkName,
    /// Their UDP destination port.
    pub port: u16,
    /// Whether peers are learned from packets received.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
}

/// An address on a link, of global scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device that has it.
    pub link: LinkName,
    /// The address and the prefix length it was given with.
    pub network: IpNet,
}

/// A route in the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which packets it is for.
    pub destination: IpNet,
    /// Which of several for them comes first.
    pub metric: Metric,
    /// What happens to them.
    pub action: RouteAction,
}

impl Route {
    /// Drops what no other route to the same destination takes: packets for a node's own subnet while there is no bridge
    /// that has it, which would else leave by the default route.
    pub fn last_resort(destination: IpNet) -> Self {
        Self { destination, metric: Metric::Last, action: RouteAction::Blackhole }
    }
}

/// The rank of a route among those to the same destination, which can exist beside each other if it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// The kernel's default: 0 in IPv4, 1024 in IPv6. All that plugins plan.
    Default,
    /// 4096: after that, and after what the kernel and network managers make for addresses.
    Last,
}

/// What happens to the packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// They go out.
    Forward {
        /// Through this device …
        link: LinkName,
        /// … to this router; none: the destination is on the link itself.
        gateway: Option<IpAddr>,
        /// The gateway is taken to be on the link (`RTNH_F_ONLINK`).
        onlink: bool,
    },
    /// They are dropped in silence (`RTN_BLACKHOLE`).
    Blackhole,
    /// Something that cannot be planned (several next hops, unreachable …). Only ever observed.
    Other,
}

/// A permanent neighbour (`NUD_PERMANENT`): an entry for ARP or neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The device it is reached through.
    pub link: LinkName,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddress,
}

/// A permanent entry of a VXLAN device's forwarding database (`NTF_SELF`, `NUD_PERMANENT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub link: LinkName,
    /// Frames for this address …
    pub mac: MacAddress,
    /// … go to the VTEP at this one.
    pub destination: IpAddr,
}

/// A setting of one device: `net.<family>.conf.<link>.<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The device.
    pub link: LinkName,
    /// Which tree it is in.
    pub family: Family,
    /// Its last component, `accept_ra`: lower-case letters, digits and underscores.
    pub name: String,
    /// As written to and read from `/proc/sys`, without the newline.
    pub value: String,
}

/// A thing in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A network device.
    Link(Link),
    /// A setting of one.
    Sysctl(Sysctl),
    /// An address of one.
    Address(Address),
    /// A forwarding database entry of one.
    FdbEntry(FdbEntry),
    /// A neighbour behind one.
    Neighbour(Neighbour),
    /// A route.
    Route(Route),
}

/// What the kernel tells objects apart by. Ordered by what has to be there first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A device, by name.
    Link(LinkName),
    /// A setting, by device, tree and name.
    Sysctl(LinkName, Family, Box<str>),
    /// An address, by device and the address with its prefix length.
    Address(LinkName, IpNet),
    /// A forwarding database entry, by device and Ethernet address.
    FdbEntry(LinkName, MacAddress),
    /// A neighbour, by device and address.
    Neighbour(LinkName, IpAddr),
    /// A route, by destination and metric.
    Route(IpNet, Metric),
}

impl ObjectKey {
    /// What [`kind`](Self::kind) gives.
    pub const KINDS: [&str; 6] = ["link", "sysctl", "address", "fdb", "neighbour", "route"];

    /// The kind of object, in a word: the one that its text begins with.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Link(..) => "link",
            Self::Sysctl(..) => "sysctl",
            Self::Address(..) => "address",
            Self::FdbEntry(..) => "fdb",
            Self::Neighbour(..) => "neighbour",
            Self::Route(..) => "route",
        }
    }
}

impl Object {
    /// What the kernel tells it apart by.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Link(link) => ObjectKey::Link(link.name),
            Self::Sysctl(s) => ObjectKey::Sysctl(s.link, s.family, s.name.as_str().into()),
            Self::Address(address) => ObjectKey::Address(address.link, address.network),
            Self::FdbEntry(entry) => ObjectKey::FdbEntry(entry.link, entry.mac),
            Self::Neighbour(neighbour) => ObjectKey::Neighbour(neighbour.link, neighbour.address),
            Self::Route(route) => ObjectKey::Route(route.destination, route.metric),
        }
    }

    /// The device that takes this object with it when it goes.
    pub fn link(&self) -> Option<LinkName> {
        match self {
            Self::Link(_) => None,
            Self::Sysctl(sysctl) => Some(sysctl.link),
            Self::Address(address) => Some(address.link),
            Self::FdbEntry(entry) => Some(entry.link),
            Self::Neighbour(neighbour) => Some(neighbour.link),
            Self::Route(route) => match route.action {
                RouteAction::Forward { link, .. } => Some(link),
                RouteAction::Blackhole | RouteAction::Other => None,
            },
        }
    }
}

impl fmt::Display for Object {
    /// The way `ip` and `bridge` would show it, so that a log line can be compared with their output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => {
                write!(f, "link {} type {} mtu {}", link.name, link.kind.name(), link.mtu)?;
                if let Some(mac) = link.mac {
                    write!(f, " address {mac}")?;
                }
                if let LinkKind::Vxlan(vxlan) = &link.kind {
                    write!(
                        f,
                        " id {} local {} dev {} dstport {}{}{}",
                        vxlan.vni,
                        vxlan.local,
                        vxlan.underlay,
                        vxlan.port,
                        if vxlan.learning { " learning" } else { " nolearning" },
                        if vxlan.gbp { " gbp" } else { "" },
                    )?;
                }
                f.write_str(if link.up { " up" } else { " down" })
            }
            Self::Sysctl(sysctl) => write!(f, "{} = {}", self.key(), sysctl.value),
            Self::Address(_) => fmt::Display::fmt(&self.key(), f),
            Self::FdbEntry(entry) => write!(f, "{} dst {}", self.key(), entry.destination),
            Self::Neighbour(neighbour) => write!(f, "{} lladdr {}", self.key(), neighbour.mac),
            Self::Route(route) => match route.action {
                RouteAction::Forward { link, gateway, onlink } => {
                    fmt::Display::fmt(&self.key(), f)?;
                    if let Some(gateway) = gateway {
                        write!(f, " via {gateway}")?;
                    }
                    write!(f, " dev {link}{}", if onlink { " onlink" } else { "" })
                }
                RouteAction::Blackhole => write!(f, "{} blackhole", self.key()),
                RouteAction::Other => write!(f, "{} of another kind", self.key()),
            },
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "link {name}"),
            Self::Sysctl(link, family, name) => {
                write!(f, "sysctl net.{}.conf.{link}.{name}", family.sysctl_tree())
            }
            Self::Address(link, network) => write!(f, "address {network} dev {link}"),
            Self::FdbEntry(link, mac) => write!(f, "fdb {mac} dev {link}"),
            Self::Neighbour(link, address) => write!(f, "neighbour {address} dev {link}"),
            Self::Route(destination, Metric::Default) => write!(f, "route {destination}"),
            Self::Route(destination, Metric::Last) => write!(f, "route {destination} metric 4096"),
        }
    }
}

/// Kernel state that should hold: a set of objects, each named once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In no particular order.
    pub objects: Vec<Object>,
}
