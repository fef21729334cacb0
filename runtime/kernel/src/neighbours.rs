//! Converts neighbours and FDB entries to `RTM_NEWNEIGH` of `AF_INET`, `AF_INET6` and `AF_BRIDGE`,
//! and back.

use std::net::IpAddr;

use heddle_core::address::MacAddress;
use heddle_core::object::{FdbEntry, Neighbour, Object, ObjectKey};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::addresses::family;
use crate::links::Device;
use crate::socket::Request;

/// Decodes a message into a key and the object under that key. The object is `None` if it is not
/// permanent or cannot be planned. `device` is the device with the message's index.
pub(crate) fn decode(
    message: &NeighbourMessage,
    device: &Device,
) -> Option<(ObjectKey, Option<Object>)> {
    let header = &message.header;
    let (mut destination, mut mac, mut plain) = (None, None, true);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(address) => destination = ip(address),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddress);
            }
            // An FDB entry with its own UDP port, VNI or interface instead of the device's.
            NeighbourAttribute::Port(_)
            | NeighbourAttribute::Vni(_)
            | NeighbourAttribute::IfIndex(_) => plain = false,
            _ => {}
        }
    }
    // The state is a set of flags: `bridge fdb replace … permanent` sets more than this one.
    let flag = u16::from(NeighbourState::Permanent);
    let permanent = u16::from(header.state) & flag != 0 && plain;
    let link = device.name;
    if header.family == AddressFamily::Bridge {
        if !header.flags.contains(NeighbourFlags::Own) {
            return None;
        }
        let mac = mac?;
        let entry = destination.filter(|_| permanent);
        let entry = entry.map(|destination| Object::FdbEntry(FdbEntry { link, mac, destination }));
        return Some((ObjectKey::FdbEntry(link, mac), entry));
    }
    if header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let address = destination?;
    let neighbour = mac.filter(|_| permanent);
    let neighbour = neighbour.map(|mac| Object::Neighbour(Neighbour { link, address, mac }));
    Some((ObjectKey::Neighbour(link, address), neighbour))
}

/// Converts an address. In messages of `AF_BRIDGE` only its length tells the family.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        NeighbourAddress::Other(bytes) => <[u8; 4]>::try_from(bytes.as_slice())
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
            .ok(),
        _ => None,
    }
}

/// Builds the request to dump all neighbours of both families.
pub(crate) fn all() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())
}

/// Builds the request to dump a device's FDB.
pub(crate) fn fdb_of(device: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = device;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Builds the request to add or replace a neighbour.
pub(crate) fn put_neighbour(device: u32, neighbour: &Neighbour) -> Request {
    put(neighbour_message(device, neighbour))
}

/// Builds the request to remove a neighbour.
pub(crate) fn remove_neighbour(device: u32, neighbour: &Neighbour) -> Request {
    remove(neighbour_message(device, neighbour))
}

/// Builds the request to add or replace an FDB entry.
pub(crate) fn put_fdb_entry(device: u32, entry: &FdbEntry) -> Request {
    put(fdb_message(device, entry))
}

/// Builds the request to remove an FDB entry, if it still has its destination.
pub(crate) fn remove_fdb_entry(device: u32, entry: &FdbEntry) -> Request {
    remove(fdb_message(device, entry))
}

fn put(message: NeighbourMessage) -> Request {
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Request { message: RouteNetlinkMessage::NewNeighbour(message), flags }
}

fn remove(message: NeighbourMessage) -> Request {
    Request { message: RouteNetlinkMessage::DelNeighbour(message), flags: 0 }
}

fn neighbour_message(device: u32, neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = message(device, neighbour.address, neighbour.mac);
    message.header.family = family(neighbour.address);
    message
}

fn fdb_message(device: u32, entry: &FdbEntry) -> NeighbourMessage {
    let mut message = message(device, entry.destination, entry.mac);
    message.header.family = AddressFamily::Bridge;
    message.header.flags = NeighbourFlags::Own;
    message
}

fn message(device: u32, address: IpAddr, mac: MacAddress) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(address.into()),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    message
}
