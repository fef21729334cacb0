//! Chooses the peer of each packet, with the table as a fallback for a failed plugin.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::table::Table;

/// Time for which the table replaces a failed plugin. Long enough to start a new instance, short
/// enough to end traffic that a working plugin would have stopped.
pub const FALLBACK: Duration = Duration::from_secs(30);

/// Chooses the peer of a packet. Used by one thread, outside any async runtime; a slow call delays
/// the packets.
pub trait Steer: Send {
    /// Appends an answer for each destination: the index of a peer in the [`Table`] that came with
    /// this value, or `None` to send the packet nowhere.
    ///
    /// # Errors
    ///
    /// The reason why there is no answer. The value is not used again.
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String>;
}

/// Also transforms packets between hosts. Packets are passed concatenated, with the length of each;
/// the result has the same number of lengths, where 0 drops that packet.
pub trait Transform: Steer {
    /// Returns the UDP payloads to send to a peer instead of these packets. Each may exceed its
    /// packet by at most the declared overhead ([`Transforms::overhead`](crate::Transforms)).
    ///
    /// # Errors
    ///
    /// The reason for the failure. The value is not used again.
    fn encapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String>;

    /// Returns the packets in these UDP payloads from a peer.
    ///
    /// # Errors
    ///
    /// The reason for the failure. The value is not used again.
    fn decapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String>;
}

/// Implements [`Steer`] with a table, without a plugin.
#[derive(Clone, Debug)]
pub struct TableSteering(pub Arc<Table>);

impl Steer for TableSteering {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        answers.extend(destinations.iter().map(|&destination| self.0.route(destination)));
        Ok(())
    }
}

/// The current steering of one thread's packets.
pub(crate) enum Steering {
    /// A plugin steers.
    Plugin {
        /// The plugin's instance.
        plugin: Box<dyn Steer>,
        /// The remaining deadline of the table fallback, inherited from a failed predecessor.
        /// `None` once this instance has answered.
        until: Option<Instant>,
    },
    /// A plugin steers and transforms. It has no fallback, because packets that it would have
    /// encrypted must not leave in plain text.
    Transform {
        /// The plugin's instance.
        plugin: Box<dyn Transform>,
        /// The maximum number of bytes that it adds to a packet.
        overhead: usize,
    },
    /// The table steers, since the plugin failed.
    Table {
        /// The deadline of the fallback.
        until: Instant,
    },
    /// Nothing steers: packets are dropped.
    Nobody,
}

/// The source of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The plugin.
    Plugin,
    /// The table, as a fallback.
    Table,
    /// There are no answers.
    Nobody,
}

impl Steering {
    /// Replaces the current steering. A plugin that fails on its first call does not extend the
    /// fallback.
    pub(crate) fn replace(&mut self, mut next: Self) {
        if let Self::Plugin { until, .. } = &mut next {
            *until = match self {
                Self::Table { until } => Some(*until),
                Self::Plugin { until, .. } => *until,
                Self::Transform { .. } | Self::Nobody => None,
            };
        }
        *self = next;
    }

    /// Handles the failure or loss of the plugin.
    pub(crate) fn fail(&mut self, now: Instant) {
        match self {
            Self::Plugin { until, .. } => {
                *self = Self::Table { until: until.unwrap_or(now + FALLBACK) };
            }
            Self::Transform { .. } => *self = Self::Nobody,
            // A running fallback is not restarted.
            Self::Table { .. } | Self::Nobody => {}
        }
    }

    /// Appends an answer for each destination, unless nothing steers. Also returns the reason if
    /// the plugin failed, once; the packets are steered nevertheless.
    pub(crate) fn steer(
        &mut self,
        table: &Table,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
        now: Instant,
    ) -> (By, Option<String>) {
        let result = match self {
            Self::Plugin { plugin, .. } => plugin.steer(destinations, answers),
            Self::Transform { plugin, .. } => plugin.steer(destinations, answers),
            Self::Table { until } if now < *until => {
                answers.extend(destinations.iter().map(|&destination| table.route(destination)));
                return (By::Table, None);
            }
            Self::Table { .. } | Self::Nobody => return (By::Nobody, None),
        };
        match result.and_then(|()| check(answers, destinations.len())) {
            Ok(()) => {
                if let Self::Plugin { until, .. } = self {
                    *until = None;
                }
                (By::Plugin, None)
            }
            Err(reason) => {
                answers.clear();
                self.fail(now);
                let (by, _) = self.steer(table, destinations, answers, now);
                (by, Some(reason))
            }
        }
    }
}

fn check(answers: &[Option<u32>], expected: usize) -> Result<(), String> {
    if answers.len() == expected {
        Ok(())
    } else {
        Err(format!("{} answers for {expected} packets", answers.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Peer;

    /// Answers with peer 7 this many times, then fails.
    struct Answers(usize);

    impl Steer for Answers {
        fn steer(
            &mut self,
            destinations: &[IpAddr],
            answers: &mut Vec<Option<u32>>,
        ) -> Result<(), String> {
            self.0 = self.0.checked_sub(1).ok_or("out of fuel")?;
            answers.extend(destinations.iter().map(|_| Some(7)));
            Ok(())
        }
    }

    impl Transform for Answers {
        fn encapsulate(
            &mut self,
            _: u32,
            bytes: &[u8],
            lengths: &[u32],
        ) -> Result<(Vec<u8>, Vec<u32>), String> {
            Ok((bytes.to_vec(), lengths.to_vec()))
        }

        fn decapsulate(
            &mut self,
            _: u32,
            bytes: &[u8],
            lengths: &[u32],
        ) -> Result<(Vec<u8>, Vec<u32>), String> {
            Ok((bytes.to_vec(), lengths.to_vec()))
        }
    }

    /// Omits the answer for the last packet.
    struct Forgetful;

    impl Steer for Forgetful {
        fn steer(
            &mut self,
            destinations: &[IpAddr],
            answers: &mut Vec<Option<u32>>,
        ) -> Result<(), String> {
            answers.extend(destinations[1..].iter().map(|_| None));
            Ok(())
        }
    }

    fn plugin(answers: usize) -> Steering {
        Steering::Plugin { plugin: Box::new(Answers(answers)), until: None }
    }

    fn table() -> Table {
        Table::new(vec![Peer {
            endpoints: vec!["192.0.2.1".parse().unwrap()],
            subnets: vec!["10.244.1.0/24".parse().unwrap()],
        }])
    }

    fn steer(steering: &mut Steering, now: Instant) -> (By, Option<String>, Vec<Option<u32>>) {
        let destinations = ["10.244.1.2", "10.244.2.2"].map(|address| address.parse().unwrap());
        let mut answers = Vec::new();
        let (by, reason) = steering.steer(&table(), &destinations, &mut answers, now);
        (by, reason, answers)
    }

    #[test]
    fn table_replaces_failed_plugin_for_limited_time() {
        let (mut steering, now) = (plugin(1), Instant::now());
        assert_eq!(steer(&mut steering, now), (By::Plugin, None, vec![Some(7), Some(7)]));
        let reason = Some("out of fuel".to_owned());
        assert_eq!(steer(&mut steering, now), (By::Table, reason, vec![Some(0), None]));
        let late = now + FALLBACK - Duration::from_millis(1);
        assert_eq!(steer(&mut steering, late), (By::Table, None, vec![Some(0), None]));
        assert_eq!(steer(&mut steering, now + FALLBACK), (By::Nobody, None, vec![]));
    }

    #[test]
    fn repeatedly_failing_plugins_do_not_extend_fallback() {
        let (mut steering, now) = (plugin(0), Instant::now());
        steer(&mut steering, now);
        steering.replace(plugin(0));
        assert_eq!(steer(&mut steering, now + FALLBACK / 2).0, By::Table);
        steering.replace(plugin(0));
        steering.replace(plugin(0));
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Nobody);
        // A working instance does extend it.
        steering.replace(plugin(1));
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Plugin);
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Table);
    }

    #[test]
    fn failure_during_fallback_does_not_extend_it() {
        let (mut steering, now) = (plugin(0), Instant::now());
        steering.fail(now);
        steering.fail(now + FALLBACK / 2);
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Nobody);
    }

    #[test]
    fn failed_transform_has_no_fallback() {
        let plugin = Box::new(Answers(0));
        let (mut steering, now) = (Steering::Transform { plugin, overhead: 8 }, Instant::now());
        let reason = Some("out of fuel".to_owned());
        assert_eq!(steer(&mut steering, now), (By::Nobody, reason, vec![]));
        assert_eq!(steer(&mut steering, now), (By::Nobody, None, vec![]));
    }

    #[test]
    fn too_few_answers_are_a_failure() {
        let (mut steering, now) =
            (Steering::Plugin { plugin: Box::new(Forgetful), until: None }, Instant::now());
        let (by, reason, answers) = steer(&mut steering, now);
        assert_eq!((by, answers), (By::Table, vec![Some(0), None]));
        assert_eq!(reason.as_deref(), Some("1 answers for 2 packets"));
    }
}
