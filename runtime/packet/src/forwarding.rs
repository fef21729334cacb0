//! What a path goes by, and how the threads get a new one without being paused.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::steer::{Steer, Steering, Transform};
use crate::table::Table;

/// What a path goes by: the peers, and the plugin's instances that were made for exactly these.
///
/// With neither `steering` nor `transform` only the table is new, and the plugin's instances stay, as long as no better
/// ones are to be had. The peers that they know have to keep their places in it; one that is gone has no addresses and no
/// subnets any more.
#[derive(Default)]
pub struct Forwarding {
    /// The peers.
    pub table: Arc<Table>,
    /// Says where packets go.
    pub steering: Option<Box<dyn Steer>>,
    /// Says where they go and what they look like on the way. Goes before `steering`.
    pub transform: Option<Transforms>,
}

/// Instances of a plugin that transforms.
pub struct Transforms {
    /// The most bytes that `encapsulate` adds to a packet.
    pub overhead: u32,
    /// For what leaves.
    pub out: Box<dyn Transform>,
    /// For what arrives: one for each socket, in the order of [`Settings::sockets`](crate::Settings).
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

/// The part of the thread that sends.
pub(crate) struct Outbound {
    pub(crate) table: Arc<Table>,
    pub(crate) steering: Option<Steering>,
}

/// The part of a thread that receives.
pub(crate) struct Inbound {
    pub(crate) table: Arc<Table>,
    pub(crate) decap: Option<Decap>,
}

/// What makes inner packets of what arrives.
pub(crate) enum Decap {
    /// It is an inner packet.
    Bare,
    /// The plugin knows.
    Transform(Box<dyn Transform>),
    /// Nobody: it is dropped.
    Nobody,
}

impl Decap {
    /// The plugin is gone or failed.
    pub(crate) fn fail(&mut self) {
        if matches!(self, Self::Transform(_)) {
            *self = Self::Nobody;
        }
    }
}

impl Outbound {
    /// With the plugin of one that was not taken yet, unless there is a newer one.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        Self { steering: self.steering.or(before.and_then(|before| before.steering)), ..self }
    }
}

impl Inbound {
    /// With the plugin of one that was not taken yet, unless there is a newer one.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        Self { decap: self.decap.or(before.and_then(|before| before.decap)), ..self }
    }
}

impl Forwarding {
    /// The part of each thread: of the one that sends, and of those that receive on so many sockets.
    pub(crate) fn split(self, sockets: usize) -> (Outbound, Vec<Inbound>) {
        let Self { table, steering, transform } = self;
        let inbound = |decap| Inbound { table: Arc::clone(&table), decap };
        let (steering, inbound): (_, Vec<_>) = match (transform, steering) {
            (Some(Transforms { overhead, out, inbound: plugins }), _) => {
                let overhead = overhead as usize;
                let decaps = plugins.into_iter().map(Decap::Transform);
                // A socket without an instance must not take what it receives for bare packets.
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

/// Where a value waits for the one thread that takes it. Looking costs one load.
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
    /// Lays a value ready, in place of one that was not taken yet.
    pub(crate) fn put(&self, value: T) {
        self.put_after(|_| value);
    }

    /// Lays a value ready, made of the one that was not taken yet.
    pub(crate) fn put_after(&self, value: impl FnOnce(Option<T>) -> T) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let value = value(next.take());
        *next = Some(value);
        self.fresh.store(true, Ordering::Release);
    }

    /// Takes what lies ready.
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
    fn the_latest_is_taken_and_only_once() {
        let slot = Slot::default();
        assert_eq!(slot.take(), None);
        slot.put(1);
        slot.put(2);
        assert_eq!(slot.take(), Some(2));
        assert_eq!(slot.take(), None);
    }

    #[test]
    fn what_is_put_while_the_other_takes_is_not_lost() {
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
    fn a_table_alone_leaves_the_plugin_as_it_is() {
        let (out, inbound) = Forwarding::default().split(2);
        assert!(out.steering.is_none());
        assert!(inbound.len() == 2 && inbound.iter().all(|inbound| inbound.decap.is_none()));
    }

    #[test]
    fn a_plugin_that_was_not_taken_yet_survives_a_table_alone() {
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
    fn with_steering_alone_packets_arrive_bare() {
        let table = Arc::new(Table::default());
        let steering: Box<dyn Steer> = Box::new(TableSteering(Arc::clone(&table)));
        let (out, inbound) =
            Forwarding { table, steering: Some(steering), transform: None }.split(2);
        assert!(matches!(out.steering, Some(Steering::Plugin { .. })));
        assert!(inbound.iter().all(|inbound| matches!(inbound.decap, Some(Decap::Bare))));
    }
}
