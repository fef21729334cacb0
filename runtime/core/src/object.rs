//! The kernel objects that make up a plan, and the keys that identify them.
//!
//! [`Object`] is one desired or observed object; [`ObjectKey`] is the part of it that the kernel
//! identifies it by. Two objects with the same key cannot both exist. Keys are sorted in the order
//! of creation: devices before their addresses, addresses before routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Family, LinkName, MacAddress};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name of the device.
    pub name: LinkName,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address. A desired link without one takes whatever address the kernel assigns.
    pub mac: Option<MacAddress>,
    /// True if the device is administratively up (`IFF_UP`). Always true for desired links.
    pub up: bool,
    /// Kind of the device, with the options of that kind.
    pub kind: LinkKind,
}

/// The kind of a network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// A TUN device (`linux/if_tun.h`): exchanges IP packets with a program, which creates it. It
    /// disappears with that program.
    Tun,
    /// A kind that cannot be planned, by the kernel's name for it (empty: hardware). Only observed.
    Other(String),
}

impl LinkKind {
    /// Returns the kernel's name of the kind (`IFLA_INFO_KIND`).
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
    /// The interface that the outer packets leave through.
    pub underlay: LinkName,
    /// UDP destination port of the outer packets.
    pub port: u16,
    /// True if the device learns peers from received packets.
    pub learning: bool,
    /// True if the group-based policy extension is enabled.
    pub gbp: bool,
}

/// An address on a link, of global scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device that has the address.
    pub link: LinkName,
    /// The address with its prefix length.
    pub network: IpNet,
}

/// A route in the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The packets that the route matches.
    pub destination: IpNet,
    /// The rank among routes to the same destination.
    pub metric: Metric,
    /// The action on matching packets.
    pub action: RouteAction,
}

impl Route {
    /// Returns a blackhole route that matches only packets without any other route to the same
    /// destination. It keeps packets for a node's own subnet from leaving by the default route
    /// while no bridge has the subnet.
    pub fn last_resort(destination: IpNet) -> Self {
        Self { destination, metric: Metric::Last, action: RouteAction::Blackhole }
    }
}

/// The rank of a route among those to the same destination. Routes of different metrics can
/// coexist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// The kernel's default: 0 in IPv4, 1024 in IPv6. Plugins plan only this one.
    Default,
    /// 4096: after the default, and after the routes that the kernel and network managers add for
    /// addresses.
    Last,
}

/// The action on packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// The packets are forwarded.
    Forward {
        /// The output device.
        link: LinkName,
        /// The router on that device; None if the destination is on the link itself.
        gateway: Option<IpAddr>,
        /// True if the gateway is assumed to be on the link (`RTNH_F_ONLINK`).
        onlink: bool,
    },
    /// The packets are dropped silently (`RTN_BLACKHOLE`).
    Blackhole,
    /// An action that cannot be planned (several next hops, unreachable …). Only observed.
    Other,
}

/// A permanent neighbour (`NUD_PERMANENT`): an entry for ARP or neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The device that the neighbour is reached through.
    pub link: LinkName,
    /// IP address of the neighbour.
    pub address: IpAddr,
    /// Ethernet address of the neighbour.
    pub mac: MacAddress,
}

/// A permanent entry of a VXLAN device's forwarding database (`NTF_SELF`, `NUD_PERMANENT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub link: LinkName,
    /// Ethernet destination of the frames.
    pub mac: MacAddress,
    /// Address of the VTEP that the frames are sent to.
    pub destination: IpAddr,
}

/// A sysctl of one device: `net.<family>.conf.<link>.<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The device.
    pub link: LinkName,
    /// The family, which selects the sysctl tree.
    pub family: Family,
    /// Last component of the name, such as `accept_ra`: lower-case letters, digits and underscores.
    pub name: String,
    /// The value as in `/proc/sys`, without the newline.
    pub value: String,
}

/// A kernel object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A network device.
    Link(Link),
    /// A sysctl of a device.
    Sysctl(Sysctl),
    /// An address of a device.
    Address(Address),
    /// A forwarding database entry of a VXLAN device.
    FdbEntry(FdbEntry),
    /// A neighbour entry of a device.
    Neighbour(Neighbour),
    /// A route.
    Route(Route),
}

/// The key that the kernel identifies an object by. Keys are sorted in the order of creation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A device, by name.
    Link(LinkName),
    /// A sysctl, by device, family and name.
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
    /// All values that [`kind`](Self::kind) returns.
    pub const KINDS: [&str; 6] = ["link", "sysctl", "address", "fdb", "neighbour", "route"];

    /// Returns the kind of object as one word, the first word of its text.
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

    /// Returns true if packets are carried without the object as well: it is a sysctl of
    /// [`OPTIONAL_SYSCTLS`].
    pub fn is_optional(&self) -> bool {
        matches!(self, Self::Sysctl(_, _, name) if OPTIONAL_SYSCTLS.contains(&&**name))
    }
}

/// Names of the sysctls of a device that protect the host or save packets, and that no packet of
/// the overlay depends on (`Documentation/networking/ip-sysctl.rst` of the kernel). All others may
/// decide whether packets pass: `forwarding`, `rp_filter`, `disable_ipv6`, and any that is not
/// known here.
pub const OPTIONAL_SYSCTLS: [&str; 21] = [
    "accept_ra",
    "accept_ra_defrtr",
    "accept_ra_from_local",
    "accept_ra_min_hop_limit",
    "accept_ra_min_plen",
    "accept_ra_mtu",
    "accept_ra_pinfo",
    "accept_ra_rt_info_max_plen",
    "accept_ra_rt_info_min_plen",
    "accept_ra_rtr_pref",
    "accept_redirects",
    "accept_source_route",
    "addr_gen_mode",
    "autoconf",
    "dad_transmits",
    "log_martians",
    "router_solicitations",
    "secure_redirects",
    "send_redirects",
    "shared_media",
    "use_tempaddr",
];

impl Object {
    /// Returns the key that the kernel identifies the object by.
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

    /// Returns the device whose removal removes this object.
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
    /// Formats the object as `ip` and `bridge` show it, so that a log line can be compared with
    /// their output.
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
    /// The objects, in no particular order.
    pub objects: Vec<Object>,
}

impl Plan {
    /// Returns the devices in the plan.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.objects.iter().filter_map(|object| match object {
            Object::Link(link) => Some(link),
            _ => None,
        })
    }
}
