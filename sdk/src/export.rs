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
