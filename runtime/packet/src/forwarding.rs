//! The forwarding state of a path, and its replacement without pausing the threads.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::steer::{Steer, Steering, Transform};
use crate::table::Table;

/// The peers, and the plugin's instances that were made for exactly these peers.
///
/// With neither `steering` nor `transform`, only the table is replaced, and the threads keep the
/// plugin's instances until better ones are available. The peers known to those instances have to
/// keep their indices in the table; a peer that is gone stays, without addresses and subnets.
#[derive(Default)]
pub struct Forwarding {
    /// The peers.
    pub table: Arc<Table>,
    /// Chooses the peers of packets.
    pub steering: Option<Box<dyn Steer>>,
    /// Chooses the peers of packets and transforms the packets. Takes precedence over `steering`.
    pub transform: Option<Transforms>,
}

/// The instances of a plugin that transforms.
pub struct Transforms {
    /// The maximum number of bytes that `encapsulate` adds to a packet.
    pub overhead: u32,
    /// The instance for outbound packets.
    pub out: Box<dyn Transform>,
    /// The instances for inbound packets: one for each socket, in the order of
    /// [`Settings::sockets`](crate::Settings).
    pub inbound: Vec<Box<dyn Transform>>,
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding")
            .field("table", &self.table)
            .field("steers", &self.steering.is_some())
            .field("transforms", &self.transform.is_some())
            .finish()
    }
}

/// The part for the sending thread. `steering` is `None` to keep the current one.
pub(crate) struct Outbound {
    pub(crate) table: Arc<Table>,
    pub(crate) steering: Option<Steering>,
}

/// The part for a receiving thread. `decap` is `None` to keep the current one.
pub(crate) struct Inbound {
    pub(crate) table: Arc<Table>,
    pub(crate) decap: Option<Decap>,
}

/// Extracts inner packets from datagrams.
pub(crate) enum Decap {
    /// The payload is the inner packet.
    Bare,
    /// The plugin extracts it.
    Transform(Box<dyn Transform>),
    /// There is no instance: datagrams are dropped.
    Nobody,
}

impl Decap {
    /// Handles the failure or loss of the plugin.
    pub(crate) fn fail(&mut self) {
        if matches!(self, Self::Transform(_)) {
            *self = Self::Nobody;
        }
    }
}

impl Outbound {
    /// Merges with an earlier value that was not taken yet: keeps its plugin, unless there is a
    /// newer one.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        Self { steering: self.steering.or(before.and_then(|before| before.steering)), ..self }
    }
}

impl Inbound {
    /// Merges with an earlier value that was not taken yet: keeps its plugin, unless there is a
    /// newer one.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        Self { decap: self.decap.or(before.and_then(|before| before.decap)), ..self }
    }
}

impl Forwarding {
    /// Splits it into the part of the sending thread and those of the threads that receive on this
    /// many sockets.
    pub(crate) fn split(self, sockets: usize) -> (Outbound, Vec<Inbound>) {
        let Self { table, steering, transform } = self;
        let inbound = |decap| Inbound { table: Arc::clone(&table), decap };
        let (steering, inbound): (_, Vec<_>) = match (transform, steering) {
            (Some(Transforms { overhead, out, inbound: plugins }), _) => {
                let overhead = overhead as usize;
                let decaps = plugins.into_iter().map(Decap::Transform);
                // A socket without an instance must not treat its datagrams as bare packets.
                let decaps = decaps.chain(std::iter::repeat_with(|| Decap::Nobody));
                let steering = Steering::Transform { plugin: out, overhead };
                (Some(steering), decaps.map(Some).map(inbound).take(sockets).collect())
            }
            (None, Some(plugin)) => {
                let bare = std::iter::repeat_with(|| Some(Decap::Bare));
                let steering = Steering::Plugin { plugin, until: None };
                (Some(steering), bare.map(inbound).take(sockets).collect())
            }
            (None, None) => {
                (None, std::iter::repeat_with(|| None).map(inbound).take(sockets).collect())
            }
        };
        (Outbound { table, steering }, inbound)
    }
}

/// A slot with the latest value for the one thread that takes it. Checking an empty slot costs one
/// atomic load.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    fresh: AtomicBool,
    next: Mutex<Option<T>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { fresh: AtomicBool::new(false), next: Mutex::new(None) }
    }
}

impl<T> Slot<T> {
    /// Stores a value, replacing one that was not taken yet.
    pub(crate) fn put(&self, value: T) {
        self.put_after(|_| value);
    }

    /// Stores a value computed from the one that was not taken yet.
    #[expect(clippy::disallowed_methods, reason = "for the handover, and not for a packet")]
    pub(crate) fn put_after(&self, value: impl FnOnce(Option<T>) -> T) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let value = value(next.take());
        *next = Some(value);
        self.fresh.store(true, Ordering::Release);
    }

    /// Takes the stored value.
    #[expect(clippy::disallowed_methods, reason = "for the handover, and not for a packet")]
    pub(crate) fn take(&self) -> Option<T> {
        if !self.fresh.load(Ordering::Acquire) {
            return None;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.fresh.store(false, Ordering::Relaxed);
        next.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::TableSteering;

    #[test]
    fn slot_yields_latest_value_once() {
        let slot = Slot::default();
        assert_eq!(slot.take(), None);
        slot.put(1);
        slot.put(2);
        assert_eq!(slot.take(), Some(2));
        assert_eq!(slot.take(), None);
    }

    #[test]
    fn value_put_during_take_is_not_lost() {
        let (slot, last) = (Slot::default(), 10_000);
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=last).for_each(|number| slot.put(number)));
            let mut seen = 0;
            while seen < last {
                if let Some(number) = slot.take() {
                    assert!(number > seen, "{number} after {seen}");
                    seen = number;
                }
            }
        });
    }

    #[test]
    fn table_alone_keeps_the_plugin() {
        let (out, inbound) = Forwarding::default().split(2);
        assert!(out.steering.is_none());
        assert!(inbound.len() == 2 && inbound.iter().all(|inbound| inbound.decap.is_none()));
    }

    #[test]
    fn pending_plugin_survives_table_alone() {
        let table = || Arc::new(Table::default());
        let steering: Box<dyn Steer> = Box::new(TableSteering(table()));
        let whole = Forwarding { table: table(), steering: Some(steering), transform: None };
        let slot = Slot::default();
        let (latest, later) = (Arc::new(Table::default()), table());
        slot.put(whole.split(0).0);
        for table in [later, Arc::clone(&latest)] {
            let (alone, _) = Forwarding { table, steering: None, transform: None }.split(0);
            slot.put_after(|before| alone.after(before));
        }
        let taken = slot.take().unwrap();
        assert!(matches!(taken.steering, Some(Steering::Plugin { .. })));
        assert!(Arc::ptr_eq(&taken.table, &latest));
    }

    #[test]
    fn steering_without_transform_expects_bare_packets() {
        let table = Arc::new(Table::default());
        let steering: Box<dyn Steer> = Box::new(TableSteering(Arc::clone(&table)));
        let (out, inbound) =
            Forwarding { table, steering: Some(steering), transform: None }.split(2);
        assert!(matches!(out.steering, Some(Steering::Plugin { .. })));
        assert!(inbound.iter().all(|inbound| matches!(inbound.decap, Some(Decap::Bare))));
    }
}
