//! What a path goes by, and how the threads get a new one without being paused.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::steer::{Pilot, Steer, Transform};
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

/// A new plugin for one thread. None: there is no other than before.
pub(crate) type News<P> = Option<P>;

/// The part of the thread that sends.
pub(crate) struct Outbound {
    pub(crate) table: Arc<Table>,
    pub(crate) pilot: News<Pilot>,
}

/// The part of a thread that receives.
pub(crate) struct Inbound {
    pub(crate) table: Arc<Table>,
    pub(crate) opener: News<Opener>,
}

/// What makes inner packets of what arrives.
pub(crate) enum Opener {
    /// It is an inner packet.
    Bare,
    /// The plugin knows.
    Transform(Box<dyn Transform>),
    /// Nobody: it is dropped.
    Nobody,
}

impl Opener {
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
        Self { pilot: self.pilot.or(before.and_then(|before| before.pilot)), ..self }
    }
}

impl Inbound {
    /// With the plugin of one that was not taken yet, unless there is a newer one.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        Self { opener: self.opener.or(before.and_then(|before| before.opener)), ..self }
    }
}

impl Forwarding {
    /// The part of each thread: of the one that sends, and of those that receive on so many sockets.
    pub(crate) fn split(self, sockets: usize) -> (Outbound, Vec<Inbound>) {
        let Self { table, steering, transform } = self;
        let inbound = |opener| Inbound { table: Arc::clone(&table), opener };
        let (pilot, inbound): (_, Vec<_>) = match (transform, steering) {
            (Some(Transforms { overhead, out, inbound: plugins }), _) => {
                let overhead = overhead as usize;
                let openers = plugins.into_iter().map(Opener::Transform);
                // A socket without an instance must not take what it receives for bare packets.
                let openers = openers.chain(std::iter::repeat_with(|| Opener::Nobody));
                let pilot = Pilot::Transform { plugin: out, overhead };
                (Some(pilot), openers.map(Some).map(inbound).take(sockets).collect())
            }
            (None, Some(plugin)) => {
                let bare = std::iter::repeat_with(|| Some(Opener::Bare));
                let pilot = Pilot::Plugin { plugin, until: None };
                (Some(pilot), bare.map(inbound).take(sockets).collect())
            }
            (None, None) => {
                (None, std::iter::repeat_with(|| None).map(inbound).take(sockets).collect())
            }
        };
        (Outbound { table, pilot }, inbound)
    }
}

/// Where a value waits for the one thread that takes it. Looking costs one load.
#[derive(Debug)]
pub(crate) struct Handover<T> {
    fresh: AtomicBool,
    next: Mutex<Option<T>>,
}

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self { fresh: AtomicBool::new(false), next: Mutex::new(None) }
    }
}

impl<T> Handover<T> {
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
        let handover = Handover::default();
        assert_eq!(handover.take(), None);
        handover.put(1);
        handover.put(2);
        assert_eq!(handover.take(), Some(2));
        assert_eq!(handover.take(), None);
    }

    #[test]
    fn what_is_put_while_the_other_takes_is_not_lost() {
        let (handover, last) = (Handover::default(), 10_000);
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=last).for_each(|number| handover.put(number)));
            let mut seen = 0;
            while seen < last {
                if let Some(number) = handover.take() {
                    assert!(number > seen, "{number} after {seen}");
                    seen = number;
                }
            }
        });
    }

    #[test]
    fn a_table_alone_leaves_the_plugin_as_it_is() {
        let (out, inbound) = Forwarding::default().split(2);
        assert!(out.pilot.is_none());
        assert!(inbound.len() == 2 && inbound.iter().all(|inbound| inbound.opener.is_none()));
    }

    #[test]
    fn a_plugin_that_was_not_taken_yet_survives_a_table_alone() {
        let table = || Arc::new(Table::default());
        let steering: Box<dyn Steer> = Box::new(TableSteering(table()));
        let whole = Forwarding { table: table(), steering: Some(steering), transform: None };
        let handover = Handover::default();
        let (latest, later) = (Arc::new(Table::default()), table());
        handover.put(whole.split(0).0);
        for table in [later, Arc::clone(&latest)] {
            let (alone, _) = Forwarding { table, steering: None, transform: None }.split(0);
            handover.put_after(|before| alone.after(before));
        }
        let taken = handover.take().unwrap();
        assert!(matches!(taken.pilot, Some(Pilot::Plugin { .. })));
        assert!(Arc::ptr_eq(&taken.table, &latest));
    }

    #[test]
    fn with_steering_alone_packets_arrive_bare() {
        let table = Arc::new(Table::default());
        let steering: Box<dyn Steer> = Box::new(TableSteering(Arc::clone(&table)));
        let (out, inbound) =
            Forwarding { table, steering: Some(steering), transform: None }.split(2);
        assert!(matches!(out.pilot, Some(Pilot::Plugin { .. })));
        assert!(inbound.iter().all(|inbound| matches!(inbound.opener, Some(Opener::Bare))));
    }
}
