//! Next-hop objects (`ip nexthop`, `linux/nexthop.h`), which routes can name by number instead of
//! listing their next hops. `packet_route` has no messages for them.

use std::collections::HashMap;

use rtnetlink::packet_core::NlasIterator;

use crate::socket::Socket;

/// `RTM_NEWNEXTHOP` and `RTM_GETNEXTHOP`, `linux/rtnetlink.h`.
const NEW: u16 = 104;
const GET: u16 = 106;

/// Size of `struct nhmsg` in bytes.
const HEADER: usize = 8;

/// `RTNH_F_DEAD`, in `nh_flags`.
const DEAD: u32 = 1;

/// `NHA_*`.
const ID: u16 = 1;
const GROUP: u16 = 2;
const DEVICE: u16 = 5;

/// Size of `struct nexthop_grp` in bytes. It begins with the number of the member.
const MEMBER: usize = 8;

/// The next-hop objects of the host: the devices of each, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextHops(HashMap<u32, Vec<u32>>);

/// A next-hop object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Object {
    Device(u32),
    Group(Vec<u32>),
}

impl NextHops {
    /// Creates the objects with these numbers and devices.
    #[cfg(test)]
    pub(crate) fn new<const N: usize>(objects: [(u32, Vec<u32>); N]) -> Self {
        Self(objects.into())
    }

    /// Reads the objects. None on kernels without them, before 5.3, or if they cannot be read: routes
    /// that list their next hops need none.
    pub(crate) fn read(socket: &mut Socket) -> Self {
        match socket.dump_raw(GET, &[0; HEADER], NEW) {
            Ok(found) => Self::decode(found.iter().map(Vec::as_slice)),
            Err(error) => {
                tracing::debug!(%error, "kernel: cannot read next-hop objects; routes through them are not followed");
                Self::default()
            }
        }
    }

    /// Decodes a dump. Skips messages that cannot be decoded, and objects that are dead or drop
    /// packets.
    fn decode<'a>(dump: impl Iterator<Item = &'a [u8]>) -> Self {
        let objects: HashMap<_, _> = dump.filter_map(object).collect();
        let device = |id: &u32| match objects.get(id) {
            Some(Object::Device(index)) => Some(*index),
            _ => None,
        };
        let devices = |(id, object): (&u32, &Object)| {
            let devices = match object {
                Object::Device(index) => vec![*index],
                Object::Group(members) => members.iter().filter_map(device).collect(),
            };
            (*id, devices)
        };
        Self(objects.iter().map(devices).collect())
    }

    /// Returns the devices of an object, by index.
    pub(crate) fn devices(&self, id: u32) -> Vec<u32> {
        self.0.get(&id).cloned().unwrap_or_default()
    }
}

/// Decodes one object with its number.
fn object(payload: &[u8]) -> Option<(u32, Object)> {
    let flags = u32::from_ne_bytes(*payload.get(4..HEADER)?.first_chunk()?);
    if flags & DEAD != 0 {
        return None;
    }
    let (mut id, mut object) = (None, None);
    for attribute in NlasIterator::new(payload.get(HEADER..)?).map_while(Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            ID => id = number(value),
            DEVICE => object = number(value).map(Object::Device),
            GROUP => {
                object = Some(Object::Group(value.chunks(MEMBER).filter_map(number).collect()));
            }
            _ => {}
        }
    }
    Some((id?, object?))
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    }

    fn message(flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [&[2, 0, 0, 0][..], &flags.to_ne_bytes()].concat();
        [header, attributes.concat()].concat()
    }

    #[test]
    fn objects_and_groups_have_devices() {
        let id = |id: u32| attribute(ID, &id.to_ne_bytes());
        let device = |index: u32| attribute(DEVICE, &index.to_ne_bytes());
        let group = |members: &[u32]| {
            let member = |id: &u32| [id.to_ne_bytes(), [0; 4]].concat();
            attribute(GROUP, &members.iter().flat_map(member).collect::<Vec<_>>())
        };
        let dump = [
            message(0, &[id(7), device(2)]),
            message(0, &[id(8), device(3)]),
            message(DEAD, &[id(9), device(4)]),
            // A blackhole.
            message(0, &[id(10), attribute(4, &[])]),
            message(0, &[id(20), group(&[7, 8, 9, 10])]),
            vec![1, 2, 3],
        ];
        let found = NextHops::decode(dump.iter().map(Vec::as_slice));
        assert_eq!(found.devices(7), [2]);
        assert_eq!(found.devices(20), [2, 3]);
        for id in [9, 10, 11] {
            assert!(found.devices(id).is_empty(), "{id}");
        }
    }
}
