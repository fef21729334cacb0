//! Who says where a packet goes, and who does while that one cannot.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::table::Table;

/// How long the table steers in place of a plugin that failed. Long enough for a new instance, short enough that what
/// a plugin would have forbidden by now does not go on.
pub const FALLBACK: Duration = Duration::from_secs(30);

/// Says which peer a packet goes to. Used by one thread, outside any runtime; what takes long holds up the packets.
pub trait Steer: Send {
    /// Appends an answer for each destination: the index of a peer in the [`Table`] that came with this value, or none
    /// where the packet goes nowhere.
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

/// Says besides what packets look like between hosts. Packets are handed over one after another, with the length of
/// each; as many lengths come back, where 0 drops that packet.
pub trait Transform: Steer {
    /// What is sent to a peer as UDP payloads in place of these packets. Each is longer than its packet by at most the
    /// overhead that was declared ([`Transforms::overhead`](crate::Transforms)).
    ///
    /// # Errors
    ///
    /// The reason why it cannot be done. The value is not used again.
    fn encapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String>;

    /// The packets in these UDP payloads from a peer.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be done. The value is not used again.
    fn decapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String>;
}

/// The table as a [`Steer`] of its own, compiled in.
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

/// What steers the packets of one thread, and what does when it fails.
pub(crate) enum Steering {
    /// The plugin.
    Plugin {
        /// It.
        plugin: Box<dyn Steer>,
        /// It comes after one that failed and has steered nothing yet: so long may the table stand in for it still.
        until: Option<Instant>,
    },
    /// The plugin, which transforms besides. Nothing stands in for it: what it would have encrypted must not leave as
    /// it is.
    Transform {
        /// It.
        plugin: Box<dyn Transform>,
        /// The most bytes it adds to a packet.
        overhead: usize,
    },
    /// The table, since the plugin failed.
    Table {
        /// Until then.
        until: Instant,
    },
    /// Nobody: packets are dropped.
    Nobody,
}

/// By whom packets were steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// By the plugin.
    Plugin,
    /// By the table in its place.
    Table,
    /// There are no answers.
    Nobody,
}

impl Steering {
    /// Another one takes over. One that works only until it is first asked does not prolong the fallback.
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

    /// The plugin is gone or failed.
    pub(crate) fn fail(&mut self, now: Instant) {
        match self {
            Self::Plugin { until, .. } => {
                *self = Self::Table { until: until.unwrap_or(now + FALLBACK) };
            }
            Self::Transform { .. } => *self = Self::Nobody,
            // What was begun is not begun anew.
            Self::Table { .. } | Self::Nobody => {}
        }
    }

    /// Appends an answer for each destination, unless there is nobody to give one. A reason is a failure of the
    /// plugin, told once; the packets are steered nevertheless.
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

    /// Answers with peer 7 as often as asked, then not at all.
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

    /// Forgets the last packet.
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
    fn the_table_stands_in_for_a_failed_plugin_and_not_for_ever() {
        let (mut steering, now) = (plugin(1), Instant::now());
        assert_eq!(steer(&mut steering, now), (By::Plugin, None, vec![Some(7), Some(7)]));
        let reason = Some("out of fuel".to_owned());
        assert_eq!(steer(&mut steering, now), (By::Table, reason, vec![Some(0), None]));
        let late = now + FALLBACK - Duration::from_millis(1);
        assert_eq!(steer(&mut steering, late), (By::Table, None, vec![Some(0), None]));
        assert_eq!(steer(&mut steering, now + FALLBACK), (By::Nobody, None, vec![]));
    }

    #[test]
    fn a_plugin_that_fails_at_once_each_time_does_not_prolong_the_fallback() {
        let (mut steering, now) = (plugin(0), Instant::now());
        steer(&mut steering, now);
        steering.replace(plugin(0));
        assert_eq!(steer(&mut steering, now + FALLBACK / 2).0, By::Table);
        steering.replace(plugin(0));
        steering.replace(plugin(0));
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Nobody);
        // One that works does.
        steering.replace(plugin(1));
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Plugin);
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Table);
    }

    #[test]
    fn a_failure_during_the_fallback_does_not_prolong_it() {
        let (mut steering, now) = (plugin(0), Instant::now());
        steering.fail(now);
        steering.fail(now + FALLBACK / 2);
        assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Nobody);
    }

    #[test]
    fn nothing_stands_in_for_a_plugin_that_transforms() {
        let plugin = Box::new(Answers(0));
        let (mut steering, now) = (Steering::Transform { plugin, overhead: 8 }, Instant::now());
        let reason = Some("out of fuel".to_owned());
        assert_eq!(steer(&mut steering, now), (By::Nobody, reason, vec![]));
        assert_eq!(steer(&mut steering, now), (By::Nobody, None, vec![]));
    }

    #[test]
    fn an_answer_that_is_too_short_is_a_failure() {
        let (mut steering, now) =
            (Steering::Plugin { plugin: Box::new(Forgetful), until: None }, Instant::now());
        let (by, reason, answers) = steer(&mut steering, now);
        assert_eq!((by, answers), (By::Table, vec![Some(0), None]));
        assert_eq!(reason.as_deref(), Some("1 answers for 2 packets"));
    }
}
