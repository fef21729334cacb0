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
mod tests;
