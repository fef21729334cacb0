//! Glue for the export macros: implements the generated traits for a plugin's type.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::backend::exports::heddle::overlay::backend as wit_backend;
use crate::bindings::backend::heddle::overlay::types as wit;
use crate::bindings::emitter::exports::heddle::overlay::emitter as wit_emitter;
use crate::bindings::steering::exports::heddle::overlay::steering as wit_steering;
use crate::bindings::transform::exports::heddle::overlay::transform as wit_transform;
use crate::convert::{all, ip};
use crate::{Backend, Emitter, Output, PacketBackend, Transform};

/// Implements the generated traits for a plugin's type.
pub struct Export<T>(PhantomData<T>);

impl<T: Backend> wit_backend::Guest for Export<T> {
    fn advertise(
        config: wit::NetworkConfig,
        node: wit::Node,
    ) -> Result<wit_backend::Advertisements, wit::ConfigError> {
        match T::advertise(&config.into(), &node.into()) {
            Ok(advertisements) => Ok(advertisements.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn plan_node(
        config: wit::NetworkConfig,
        node: wit::Node,
        lease: wit::Lease,
    ) -> Result<wit_backend::NodePlan, wit::ConfigError> {
        match T::plan_node(&config.into(), &node.into(), &lease.into()) {
            Ok(plan) => Ok(plan.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn plan_peer(
        config: wit::NetworkConfig,
        node: wit::Node,
        lease: wit::Lease,
        peer: wit::Lease,
    ) -> Result<wit::Plan, wit_backend::PeerError> {
        match T::plan_peer(&config.into(), &node.into(), &lease.into(), &peer.into()) {
            Ok(plan) => Ok(plan.into()),
            Err(error) => Err(error.into()),
        }
    }
}

thread_local! {
    /// The plugin's table of peers: a component exports one backend, and has one thread.
    static TABLE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

fn with_table<T: 'static, R>(f: impl FnOnce(&mut T) -> R) -> R {
    TABLE.with_borrow_mut(|table| {
        let table = table.as_mut().and_then(|table| table.downcast_mut());
        f(table.expect("the host calls `update` first"))
    })
}

impl<T: PacketBackend> wit_steering::Guest for Export<T> {
    fn update(
        config: wit::NetworkConfig,
        node: wit::Node,
        lease: wit::Lease,
        peers: Vec<wit::Lease>,
    ) {
        let peers: Vec<_> = all(peers);
        let table = T::with_peers(&config.into(), &node.into(), &lease.into(), &peers);
        TABLE.replace(Some(Box::new(table)));
    }

    fn steer(destinations: Vec<wit::IpAddress>) -> Vec<Option<wit::PeerIndex>> {
        with_table(|table: &mut T| {
            destinations.into_iter().map(|destination| table.steer(ip(destination))).collect()
        })
    }
}

impl<T: Transform> wit_transform::Guest for Export<T> {
    fn overhead(config: wit::NetworkConfig) -> Result<u32, wit::ConfigError> {
        T::overhead(&config.into()).map_err(Into::into)
    }

    fn encapsulate(
        peer: wit::PeerIndex,
        packets: wit_transform::Packets,
    ) -> wit_transform::Packets {
        with_table(|table: &mut T| {
            transform(&packets, |packet, payload| table.encapsulate(peer, packet, payload))
        })
    }

    fn decapsulate(
        peer: wit::PeerIndex,
        payloads: wit_transform::Packets,
    ) -> wit_transform::Packets {
        with_table(|table: &mut T| {
            transform(&payloads, |payload, packet| table.decapsulate(peer, payload, packet))
        })
    }
}

/// Bytes reserved for the growth of each packet, before the result's buffer has to grow.
const ROOM: usize = 64;

fn transform(
    packets: &wit_transform::Packets,
    mut each: impl FnMut(&[u8], &mut Output<'_>),
) -> wit_transform::Packets {
    let count = packets.lengths.len();
    let mut bytes = Vec::with_capacity(packets.bytes.len() + count * ROOM);
    let mut lengths = Vec::with_capacity(count);
    let mut rest = packets.bytes.as_slice();
    for length in &packets.lengths {
        let (packet, behind) = rest.split_at(*length as usize);
        rest = behind;
        let mut output = Output::new(&mut bytes);
        each(packet, &mut output);
        // Lengths of a component's own memory, which has 32-bit addresses.
        lengths.push(u32::try_from(output.len()).unwrap_or(u32::MAX));
    }
    wit_transform::Packets { bytes, lengths }
}

impl<T: Emitter> wit_emitter::Guest for Export<T> {
    fn emit(
        view: wit_emitter::View,
        settings: Vec<wit_emitter::Setting>,
    ) -> Result<Vec<wit_emitter::File>, String> {
        let settings: Vec<_> = all(settings);
        let files = T::emit(&view.into(), &settings)?;
        Ok(all(files))
    }
}

/// Returns the length of [`manifest`].
pub const fn manifest_length(head: &str, keys: Option<&[&str]>) -> usize {
    write_manifest(&mut [], head, keys)
}

/// Returns a manifest's text: `head`, which is a JSON object without its last brace, and the
/// backend's keys.
///
/// # Panics
///
/// At compile time, if a key has other characters than ASCII letters and digits.
pub const fn manifest<const LENGTH: usize>(head: &str, keys: Option<&[&str]>) -> [u8; LENGTH] {
    let mut text = [0; LENGTH];
    write_manifest(&mut text, head, keys);
    text
}

/// Writes a manifest as far as there is room for it, and returns its length.
const fn write_manifest(text: &mut [u8], head: &str, keys: Option<&[&str]>) -> usize {
    let mut length = write(text, 0, head.as_bytes());
    if let Some(keys) = keys {
        length = write(text, length, b",\"keys\":[");
        let mut index = 0;
        while index < keys.len() {
            length = write(text, length, if index == 0 { b"\"" } else { b",\"" });
            assert!(is_alphanumeric(keys[index].as_bytes()), "a key has letters and digits only");
            length = write(text, length, keys[index].as_bytes());
            length = write(text, length, b"\"");
            index += 1;
        }
        length = write(text, length, b"]");
    }
    write(text, length, b"}")
}

const fn write(text: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let mut index = 0;
    while index < bytes.len() {
        if at + index < text.len() {
            text[at + index] = bytes[index];
        }
        index += 1;
    }
    at + bytes.len()
}

const fn is_alphanumeric(key: &[u8]) -> bool {
    let mut index = 0;
    while index < key.len() && key[index].is_ascii_alphanumeric() {
        index += 1;
    }
    index == key.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_has_the_keys_that_a_backend_declares() {
        const HEAD: &str = r#"{"name":"x""#;
        const KEYS: Option<&[&str]> = Some(&["VNI", "Port"]);
        const LENGTH: usize = manifest_length(HEAD, KEYS);
        assert_eq!(&manifest::<LENGTH>(HEAD, KEYS), br#"{"name":"x","keys":["VNI","Port"]}"#);
        const NONE: usize = manifest_length(HEAD, Some(&[]));
        assert_eq!(&manifest::<NONE>(HEAD, Some(&[])), br#"{"name":"x","keys":[]}"#);
        const UNDECLARED: usize = manifest_length(HEAD, None);
        assert_eq!(&manifest::<UNDECLARED>(HEAD, None), br#"{"name":"x"}"#);
    }
}
