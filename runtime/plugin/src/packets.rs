//! The packet path: the host's side of the interfaces `steering` and `transform`.
//!
//! Calls are made on the thread that handles the packets, which waits for them. A call costs most
//! of a microsecond even without the plugin's own work, so this module does nothing that a batch of
//! packets does not need.

use std::net::IpAddr;
use std::sync::Arc;

use heddle_core::lease::Lease;
use heddle_core::site::Site;
use heddle_grant::{Manifest, Refusal, World};
use tokio::runtime::Handle;
use wasmtime::Store;
use wasmtime::component::{ComponentType, InstancePre, Lower};

use crate::backend::{Arguments, config_error};
use crate::bindings::backend::exports::heddle::overlay::{steering, transform};
use crate::bindings::backend::heddle::overlay::types as wit;
use crate::caller::Caller;
use crate::error::Reason;
use crate::host::HostState;
use crate::metrics::Metrics;
use crate::{from_wit, to_wit};

/// Maximum length of an IP packet in bytes.
const MAX_PACKET: u32 = 65_535;

/// A plugin that steers packets. Creates instances; clones are the same plugin.
#[derive(Clone)]
pub struct PacketPlugin(Arc<Prepared>);

struct Prepared {
    name: String,
    component: InstancePre<HostState>,
    steering: steering::GuestIndices,
    transform: Option<transform::GuestIndices>,
    caller: Caller,
    tokio: Option<Handle>,
}

/// An instance of a plugin that knows the peers. For one thread at a time; its functions block, and
/// may not be called from asynchronous code.
///
/// After a failed call, an instance cannot be called again and has to be replaced.
pub struct PacketInstance {
    plugin: PacketPlugin,
    caller: Caller,
    store: Store<HostState>,
    steering: steering::Guest,
    transform: Option<Transform>,
    /// Number of peers that the instance knows.
    peers: usize,
    /// Buffer for converted arguments, so that a call allocates nothing for them.
    destinations: Vec<wit::IpAddress>,
}

struct Transform {
    guest: transform::Guest,
    /// Maximum number of bytes that the plugin adds to a packet.
    overhead: u32,
}

/// The record `packets`, borrowed. The generated type owns its contents, so all of them would have
/// to be copied first.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
struct Packets<'a> {
    bytes: &'a [u8],
    lengths: &'a [u32],
}

impl PacketPlugin {
    /// Returns an error if the component lacks an export of its world.
    pub(crate) fn new(
        manifest: &Manifest,
        component: InstancePre<HostState>,
        caller: Caller,
    ) -> wasmtime::Result<Self> {
        let steering = steering::GuestIndices::new(&component)?;
        let transform = match manifest.world {
            World::TransformPlugin => Some(transform::GuestIndices::new(&component)?),
            _ => None,
        };
        let (name, tokio) = (manifest.name.clone(), Handle::try_current().ok());
        Ok(Self(Arc::new(Prepared { name, component, steering, transform, caller, tokio })))
    }

    /// Returns the plugin's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the counters of all its instances.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.0.caller.metrics()
    }

    /// Returns true if the plugin transforms packets for their way between hosts. Otherwise they
    /// are sent unchanged.
    pub fn transforms(&self) -> bool {
        self.0.transform.is_some()
    }

    /// Returns a fresh instance that knows these peers. Each must have a plan that was made for
    /// this site. Blocks until the plugin has taken over the peers, at most twice
    /// [`Limits::call`](crate::Limits::call).
    ///
    /// # Errors
    ///
    /// [`Reason::Config`] or [`Reason::Refused`], when the transform's overhead is unavailable, or
    /// another reason why a call failed.
    pub fn instance(&self, site: &Site, peers: &[Lease]) -> Result<PacketInstance, Reason> {
        let plugin = &self.0;
        let _tokio = self.tokio();
        let Arguments { config, node, lease } = Arguments::of(site);
        let leases: Vec<_> = peers.iter().map(to_wit::lease).collect();
        let caller = plugin.caller.another();
        let mut store = caller.store();
        let limit = caller.limits().call;
        let (steering, transform) = caller.call(limit, || {
            caller.limit(&mut store, limit);
            let instance = plugin.component.instantiate(&mut store)?;
            let steering = plugin.steering.load(&mut store, &instance)?;
            let transform = match &plugin.transform {
                Some(transform) => {
                    let guest = transform.load(&mut store, &instance)?;
                    let overhead = guest.call_overhead(&mut store, &config)?;
                    Some((guest, overhead))
                }
                None => None,
            };
            caller.limit(&mut store, limit);
            steering.call_update(&mut store, &config, &node, &lease, &leases)?;
            Ok((steering, transform))
        })?;
        let transform = match transform {
            Some((guest, overhead)) => {
                let overhead = overhead.map_err(config_error)?;
                let overhead = from_wit::overhead(overhead).map_err(|refusal| {
                    caller.metrics().count_refusal();
                    Reason::Refused(refusal)
                })?;
                Some(Transform { guest, overhead })
            }
            None => None,
        };
        Ok(PacketInstance {
            plugin: self.clone(),
            caller,
            store,
            steering,
            transform,
            peers: peers.len(),
            destinations: Vec::new(),
        })
    }

    /// Enters the Tokio runtime, which wasmtime's WASI needs when a guest writes to standard
    /// output. Otherwise it would start a runtime of its own.
    fn tokio(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.0.tokio.as_ref().map(Handle::enter)
    }
}

impl PacketInstance {
    /// Asks the plugin to which peer a packet for each destination is sent. An answer is the peer's
    /// index among those that the instance was made for. None means that the packet is dropped.
    ///
    /// # Errors
    ///
    /// [`Reason::Refused`], when there is not exactly one answer per destination or an index is out
    /// of range, or another reason why the call failed.
    pub fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), Reason> {
        self.destinations.clear();
        self.destinations.extend(destinations.iter().copied().map(to_wit::address));
        let limit = self.caller.limits().packet_call;
        let _tokio = self.plugin.tokio();
        *answers = self.caller.call(limit, || {
            self.caller.limit(&mut self.store, limit);
            self.steering.call_steer(&mut self.store, &self.destinations)
        })?;
        self.granted(steered(answers, destinations.len(), self.peers))
    }

    /// Returns the payloads to send to a peer in place of these packets, and their lengths; a
    /// length of 0 drops the packet. `bytes` holds the packets one after another, and `lengths`
    /// must add up to its length.
    ///
    /// # Errors
    ///
    /// [`Reason::Refused`], when the lengths in the answer are inconsistent, a payload is longer
    /// than the overhead allows, or the plugin does not [transform](PacketPlugin::transforms); or
    /// another reason why the call failed.
    pub fn encapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), Reason> {
        let answer = self.transform(Direction::Encapsulate, peer, Packets { bytes, lengths })?;
        let overhead = self.transform.as_ref().map_or(0, |transform| transform.overhead);
        let longest = |length: u32| length.saturating_add(overhead).min(MAX_PACKET);
        self.granted(transformed(&answer, lengths, longest))?;
        Ok((answer.bytes, answer.lengths))
    }

    /// Returns the packets inside these payloads from a peer, and their lengths; a length of 0
    /// means that a payload holds no packet.
    ///
    /// # Errors
    ///
    /// As for [`encapsulate`](Self::encapsulate), but a packet may have the maximum length of an IP
    /// packet.
    pub fn decapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), Reason> {
        let answer = self.transform(Direction::Decapsulate, peer, Packets { bytes, lengths })?;
        self.granted(transformed(&answer, lengths, |_| MAX_PACKET))?;
        Ok((answer.bytes, answer.lengths))
    }

    fn transform(
        &mut self,
        direction: Direction,
        peer: u32,
        packets: Packets<'_>,
    ) -> Result<transform::Packets, Reason> {
        let Some(Transform { guest, .. }) = &self.transform else {
            let rule = format!("expected a plugin of the world {}", World::TransformPlugin);
            return Err(Reason::Refused(Refusal::new(self.plugin.name(), rule)));
        };
        let function = match direction {
            Direction::Encapsulate => guest.func_encapsulate(),
            Direction::Decapsulate => guest.func_decapsulate(),
        };
        let limit = self.caller.limits().packet_call;
        let _tokio = self.plugin.tokio();
        let (answer,) = self.caller.call(limit, || {
            self.caller.limit(&mut self.store, limit);
            let function = function.func().typed::<(u32, Packets<'_>), _>(&self.store)?;
            function.call(&mut self.store, (peer, packets))
        })?;
        Ok(answer)
    }

    fn granted(&self, answer: Result<(), Refusal>) -> Result<(), Reason> {
        answer.map_err(|refusal| {
            self.caller.metrics().count_refusal();
            Reason::Refused(refusal)
        })
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Encapsulate,
    Decapsulate,
}

/// Checks that there is one answer for each destination, and that each names one of the peers.
fn steered(answers: &[Option<u32>], destinations: usize, peers: usize) -> Result<(), Refusal> {
    if answers.len() != destinations {
        return Err(Refusal::new(
            format_args!("peers for {} packets", answers.len()),
            format!("expected {destinations}, one for each"),
        ));
    }
    match answers.iter().flatten().find(|peer| **peer as usize >= peers) {
        None => Ok(()),
        Some(peer) => {
            Err(Refusal::new(format_args!("peer {peer}"), format!("expected one of {peers}")))
        }
    }
}

/// Checks that these packets can replace those with the lengths `given`. `longest` returns the
/// maximum length of the packet that replaces one of the given length.
fn transformed(
    packets: &transform::Packets,
    given: &[u32],
    longest: impl Fn(u32) -> u32,
) -> Result<(), Refusal> {
    let lengths = &packets.lengths;
    if lengths.len() != given.len() {
        return Err(Refusal::new(
            format_args!("{} packets", lengths.len()),
            format!("expected {}, one for each", given.len()),
        ));
    }
    let sum: u64 = lengths.iter().copied().map(u64::from).sum();
    if sum != packets.bytes.len() as u64 {
        return Err(Refusal::new(
            format_args!("packets of {} bytes", packets.bytes.len()),
            format!("expected {sum}, the sum of their lengths"),
        ));
    }
    match given.iter().zip(lengths).find(|(given, length)| **length > longest(**given)) {
        None => Ok(()),
        Some((given, length)) => Err(Refusal::new(
            format_args!("packet of {length} bytes in place of {given}"),
            format!("expected at most {}", longest(*given)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steering_answers_miscounted_or_unknown_are_refused() {
        let check =
            |answers: &[Option<u32>]| steered(answers, 2, 3).map_err(|refusal| refusal.to_string());
        assert_eq!(check(&[Some(2), None]), Ok(()));
        assert_eq!(check(&[Some(2)]), Err("peers for 1 packets: expected 2, one for each".into()));
        assert_eq!(check(&[None, Some(3)]), Err("peer 3: expected one of 3".into()));
    }

    #[test]
    fn transformed_packets_of_wrong_lengths_are_refused() {
        let check = |bytes: usize, lengths: &[u32]| {
            let packets = transform::Packets { bytes: vec![0; bytes], lengths: lengths.to_vec() };
            transformed(&packets, &[100, 50], |length| length + 16)
                .map_err(|refusal| refusal.to_string())
        };
        assert_eq!(check(182, &[116, 66]), Ok(()));
        assert_eq!(check(50, &[0, 50]), Ok(()));
        assert_eq!(check(116, &[116]), Err("1 packets: expected 2, one for each".into()));
        assert_eq!(
            check(149, &[100, 50]),
            Err("packets of 149 bytes: expected 150, the sum of their lengths".into())
        );
        assert_eq!(
            check(167, &[100, 67]),
            Err("packet of 67 bytes in place of 50: expected at most 66".into())
        );
        assert!(check(0, &[u32::MAX, 1]).is_err());
    }
}
