//! Converts devices from `RTM_NEWLINK` messages, and to requests.

use std::collections::HashMap;
use std::net::IpAddr;

use heddle_core::address::{LinkName, MacAddress};
use heddle_core::object::{Link, LinkKind, Vxlan};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVxlan};

use crate::socket::Request;

/// A network device as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: LinkName,
    pub(crate) alias: String,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    /// The kernel's name of its kind; empty for hardware.
    pub(crate) kind: String,
    /// The device that it is enslaved to, by index: a bridge, a bond, a VRF.
    pub(crate) controller: Option<u32>,
    /// True if it carries IP packets without a link layer: a TUN device, not a TAP device, which is
    /// of the same kind.
    pub(crate) bare: bool,
    /// The options of a VXLAN device, if all of them can be planned.
    pub(crate) vxlan: Option<VxlanOptions>,
}

/// The options of a [`Vxlan`], with the underlay by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VxlanOptions {
    vni: u32,
    local: IpAddr,
    underlay: u32,
    port: u16,
    learning: bool,
    gbp: bool,
}

impl Device {
    /// Decodes a device. Returns `None` for messages about something else: those of `AF_BRIDGE`
    /// describe a port of a bridge.
    pub(crate) fn decode(message: &LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let (mut name, mut alias, mut mtu, mut mac) = (None, String::new(), 0, None);
        let (mut kind, mut vxlan, mut controller) = (String::new(), None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = text.parse().ok(),
                LinkAttribute::IfAlias(text) => alias.clone_from(text),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                LinkAttribute::Controller(index) => controller = Some(*index),
                LinkAttribute::Address(octets) => {
                    mac = octets.as_slice().try_into().ok().map(MacAddress);
                }
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(name) => kind = name.to_string(),
                            LinkInfo::Data(InfoData::Vxlan(options)) => {
                                vxlan = VxlanOptions::decode(options);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let flags = message.header.flags;
        Some(Self {
            index: message.header.index,
            name: name?,
            alias,
            mtu,
            // The loopback device reports six zero bytes, which is not an address.
            mac: mac.filter(|mac| mac.0 != [0; 6]),
            up: flags.contains(LinkFlags::Up),
            loopback: flags.contains(LinkFlags::Loopback),
            kind,
            controller,
            bare: message.header.link_layer_type == LinkLayerType::None,
            vxlan,
        })
    }

    /// Converts the device to an object. A VXLAN device with options that cannot be planned becomes
    /// [`LinkKind::Other`].
    pub(crate) fn link(&self, devices: &Devices) -> Link {
        let vxlan = self.vxlan.as_ref().and_then(|options| options.with_names(devices));
        let kind = match vxlan {
            Some(vxlan) => LinkKind::Vxlan(vxlan),
            None if self.is_tun() => LinkKind::Tun,
            None => LinkKind::Other(self.kind.clone()),
        };
        Link { name: self.name, mtu: self.mtu, mac: self.mac, up: self.up, kind }
    }

    /// Returns true for a TUN device.
    pub(crate) fn is_tun(&self) -> bool {
        self.kind == "tun" && self.bare
    }
}

impl VxlanOptions {
    /// Returns the source address of its packets.
    pub(crate) fn local(&self) -> IpAddr {
        self.local
    }

    /// Decodes the options. Returns `None` if one is missing that every planned device has, or one
    /// is present that none has: a default destination, metadata from routes, notification of
    /// misses, the generic protocol extension.
    fn decode(options: &[InfoVxlan]) -> Option<Self> {
        let (mut vni, mut local, mut underlay, mut port) = (None, None, None, None);
        let (mut learning, mut gbp) = (false, false);
        for option in options {
            match *option {
                InfoVxlan::Id(id) => vni = Some(id),
                InfoVxlan::Local(address) => local = Some(IpAddr::from(address)),
                InfoVxlan::Local6(address) => local = Some(IpAddr::from(address)),
                InfoVxlan::Link(index) => underlay = Some(index),
                InfoVxlan::Port(number) => port = Some(number),
                InfoVxlan::Learning(on) => learning = on,
                InfoVxlan::Gbp => gbp = true,
                InfoVxlan::Group(_)
                | InfoVxlan::Group6(_)
                | InfoVxlan::Gpe
                | InfoVxlan::CollectMetadata(true)
                | InfoVxlan::L2Miss(true)
                | InfoVxlan::L3Miss(true) => return None,
                _ => {}
            }
        }
        Some(Self { vni: vni?, local: local?, underlay: underlay?, port: port?, learning, gbp })
    }

    fn with_names(self, devices: &Devices) -> Option<Vxlan> {
        let Self { vni, local, underlay, port, learning, gbp } = self;
        let underlay = devices.get(underlay)?.name;
        Some(Vxlan { vni, local, underlay, port, learning, gbp })
    }
}

/// The devices by index, by which all other netlink messages refer to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices(HashMap<u32, Device>);

impl Devices {
    pub(crate) fn get(&self, index: u32) -> Option<&Device> {
        self.0.get(&index)
    }

    /// Inserts or updates a device. Returns its previous state.
    pub(crate) fn insert(&mut self, device: Device) -> Option<Device> {
        self.0.insert(device.index, device)
    }

    pub(crate) fn remove(&mut self, index: u32) {
        self.0.remove(&index);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.0.values()
    }
}

impl FromIterator<Device> for Devices {
    fn from_iter<I: IntoIterator<Item = Device>>(devices: I) -> Self {
        Self(devices.into_iter().map(|device| (device.index, device)).collect())
    }
}

/// Builds the request to dump all devices.
pub(crate) fn all() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// Builds the request for one device.
pub(crate) fn named(name: LinkName) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    RouteNetlinkMessage::GetLink(message)
}

/// Builds the request to create a VXLAN device, down. It includes the settings of [`configure`], so
/// that the device never shows another MAC or MTU, except for the alias, which can only be set on
/// an existing device (`rtnl_create_link`).
pub(crate) fn create(link: &Link, vxlan: &Vxlan, underlay: u32) -> Request {
    let mut message = LinkVxlan::new(link.name.as_str(), vxlan.vni)
        .mtu(link.mtu)
        .dev(underlay)
        .port(vxlan.port)
        .learning(vxlan.learning)
        // 0 means `auto`, the system's default TTL.
        .ttl(0);
    message = match vxlan.local {
        IpAddr::V4(address) => message.local(address),
        IpAddr::V6(address) => message.local6(address),
    };
    if vxlan.gbp {
        message = message.gbp();
    }
    if let Some(mac) = link.mac {
        message = message.address(mac.0.to_vec());
    }
    let message = RouteNetlinkMessage::NewLink(message.build());
    Request { message, flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// Builds the requests that change an existing device to the wanted settings, as far as that is
/// possible, and bring it up.
///
/// Settings that already match are left alone: setting a MAC, even to the same value, makes the
/// kernel delete all neighbours behind the device (`NETDEV_CHANGEADDR` in `net/ipv4/arp.c`). VXLAN
/// options go into a message of their own: the kernel takes an MTU in the same message for a VXLAN
/// option, which cannot be changed (`vxlan_nl2conf`). The MTU comes last: if it is refused because
/// the underlay's MTU has shrunk, the device is already up and marked as ours.
pub(crate) fn configure(device: &Device, link: &Link, alias: &str) -> Vec<Request> {
    let mut messages = Vec::new();
    if let (LinkKind::Vxlan(wanted), Some(found)) = (&link.kind, &device.vxlan)
        && wanted.learning != found.learning
    {
        let options = LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan)
            .index(device.index)
            .id(wanted.vni)
            .learning(wanted.learning);
        messages.push(options.build());
    }
    let mut message = LinkUnspec::new_with_index(device.index).up();
    if device.alias != alias {
        message = message.alias(alias);
    }
    if let Some(mac) = link.mac.filter(|mac| device.mac != Some(*mac)) {
        message = message.address(mac.0.to_vec());
    }
    messages.push(message.build());
    if device.mtu != link.mtu {
        messages.push(LinkUnspec::new_with_index(device.index).mtu(link.mtu).build());
    }
    let request = |message| Request { message: RouteNetlinkMessage::NewLink(message), flags: 0 };
    messages.into_iter().map(request).collect()
}

/// Builds the request to delete a device.
pub(crate) fn delete(index: u32) -> Request {
    let message = LinkUnspec::new_with_index(index).build();
    Request { message: RouteNetlinkMessage::DelLink(message), flags: 0 }
}
