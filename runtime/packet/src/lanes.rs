//! Isolation of sources that fill the receive buffer: a source that overflows the shared one gets
//! its own.
//!
//! Datagrams wait in *lanes*: sockets on one address and port, each with a receive buffer (see
//! `socket`). All sources share lane 0. After the kernel has dropped datagrams because lane 0 was
//! full, the next [`SAMPLE`] bytes from it show who fills it. The source with the largest part is
//! then steered to a lane of its own, where it can only fill its own buffer. It is steered back
//! after [`CALM`] without an overflow there. Sources that are not peers share one such lane.
//!
//! This module decides which source uses which lane and which lane is read next, and does no I/O.
//! While lane 0 does not overflow, it costs a few comparisons for each receive call.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Number of lanes: the shared one, that of strangers, and those of peers.
pub(crate) const LANES: usize = 9;

/// The lane of all sources that are not isolated.
pub(crate) const SHARED: usize = 0;

/// The lane of sources that are not peers.
const STRANGERS: usize = 1;

/// The maximum number of sources in the lane of strangers.
const MAX_STRANGERS: usize = 16;

/// Size of the sample that shows which source fills the shared lane, in bytes of [`cost`].
const SAMPLE: usize = 4 << 20;

/// A source is isolated if it has more than 1/8 of a sample.
const PART: usize = 8;

/// Time without an overflow of a lane after which its source shares the buffer with others again.
const CALM: Duration = Duration::from_secs(10);

/// Time for which a lane that was given back is still read, since packets may still be on their way
/// to it.
const LINGER: Duration = Duration::from_secs(1);

/// Number of batches that are read from the shared lane for each batch of another lane.
const TURNS: usize = 8;

/// Minimum kernel memory for a datagram besides its payload, in bytes: `struct sk_buff` and
/// `struct skb_shared_info`.
const OVERHEAD: usize = 512;

/// The datagrams of one receive call, reduced to what matters for lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) from: IpAddr,
    /// The total length in bytes.
    pub(crate) length: usize,
    /// Number of datagrams.
    pub(crate) count: usize,
    /// Number of datagrams that the kernel dropped from the lane before this one, since the lane
    /// was opened, modulo 2^32. `None` counts as zero.
    pub(crate) dropped: Option<u32>,
}

/// The assignment of lanes to sources, and the order in which lanes are read.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: [Lane; LANES],
    turn: Turn,
    sample: Option<Sample>,
    /// True if the kernel steers datagrams according to [`Lanes::steering`]. Until it does, no lane
    /// is given up.
    is_steered: bool,
    /// True if sources can be steered to other lanes than the shared one.
    can_steer: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// The sources that are steered here. Always empty for the shared lane.
    sources: Vec<IpAddr>,
    /// True if it may contain datagrams.
    in_use: bool,
    /// Bytes still to be read from the shared lane before this one is read, because datagrams that
    /// a source sent before it was steered here come first.
    behind: usize,
    /// True if the lane was given back and has to be drained before the shared lane is read, for
    /// the same reason.
    leaving: bool,
    /// True if the lane was empty when last read, and no datagram has been read from another lane
    /// since.
    dry: bool,
    /// The last known [`Arrival::dropped`].
    dropped: u32,
    /// Time of the last event: a source arrived, the lane overflowed, or it was given back.
    since: Option<Instant>,
}

/// Position in the round robin over the lanes.
#[derive(Debug, Default)]
struct Turn {
    lane: usize,
    /// Number of batches read from the lane in this turn.
    taken: usize,
}

/// Use of the shared lane by source, in bytes of [`cost`].
#[derive(Debug, Default)]
struct Sample {
    costs: HashMap<IpAddr, usize>,
    total: usize,
}

/// A new assignment of lanes, which has to be applied in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This source has been moved out of the shared lane.
    Isolated(IpAddr),
    /// Sources have been moved back to the shared lane.
    Released(Vec<IpAddr>),
}

impl Lanes {
    /// Creates lanes of which only the shared one is in use. It stays the only one unless
    /// `can_steer` is true.
    pub(crate) fn new(can_steer: bool) -> Self {
        let mut lanes: [Lane; LANES] = Default::default();
        lanes[SHARED].in_use = true;
        Self { lanes, turn: Turn::default(), sample: None, is_steered: true, can_steer }
    }

    /// Returns the lane to read next. `None` if all lanes are empty.
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.is_steered
            && let Some(lane) = self.lanes.iter().position(|lane| lane.leaving)
        {
            return Some(lane);
        }
        // One full round, and back to the starting lane.
        for _ in 0..=LANES {
            let limit = if self.turn.lane == SHARED { TURNS } else { 1 };
            let lane = &self.lanes[self.turn.lane];
            if lane.is_readable() && !lane.dry && self.turn.taken < limit {
                self.turn.taken += 1;
                return Some(self.turn.lane);
            }
            self.turn = Turn { lane: (self.turn.lane + 1) % LANES, taken: 0 };
        }
        None
    }

    /// Returns the lanes in which datagrams may arrive and that may be read, and marks all lanes as
    /// possibly not empty.
    pub(crate) fn awake(&mut self) -> impl Iterator<Item = usize> + '_ {
        for lane in &mut self.lanes {
            lane.dry = false;
        }
        (0..LANES).filter(|&lane| self.lanes[lane].is_readable())
    }

    /// Returns true if no other lane may have datagrams.
    pub(crate) fn is_last(&self, lane: usize) -> bool {
        let mut others = self.lanes.iter().enumerate().filter(|(other, _)| *other != lane);
        others.all(|(_, lane)| !lane.is_readable() || lane.dry)
    }

    /// Records that a lane was empty.
    pub(crate) fn empty(&mut self, lane: usize, now: Instant) {
        if lane == SHARED {
            self.lanes.iter_mut().for_each(|lane| lane.behind = 0);
        }
        let lane = &mut self.lanes[lane];
        lane.dry = true;
        if !self.is_steered {
            return;
        }
        lane.leaving = false;
        let lingered = |since| now.saturating_duration_since(since) >= LINGER;
        if lane.in_use && lane.sources.is_empty() && lane.since.is_some_and(lingered) {
            lane.in_use = false;
        }
    }

    /// Records datagrams read from a lane. Returns the number of datagrams newly dropped from it.
    pub(crate) fn received(&mut self, index: usize, arrival: Arrival, now: Instant) -> usize {
        // Datagrams may have arrived in the other lanes in the meantime.
        for lane in &mut self.lanes {
            lane.dry = false;
        }
        let lane = &mut self.lanes[index];
        let dropped = arrival.dropped.map_or(0, |dropped| dropped.wrapping_sub(lane.dropped));
        if dropped > 0 {
            lane.dropped = lane.dropped.wrapping_add(dropped);
            if index != SHARED && !lane.sources.is_empty() {
                lane.since = Some(now);
            }
        }
        if index == SHARED {
            self.received_shared(arrival, dropped > 0);
        }
        dropped as usize
    }

    fn received_shared(&mut self, arrival: Arrival, overflowed: bool) {
        // The datagrams of a call took at least this much of the buffer.
        let read = arrival.length + OVERHEAD;
        let mut waiting = false;
        for lane in self.lanes.iter_mut().filter(|lane| lane.behind > 0) {
            lane.behind = lane.behind.saturating_sub(read);
            waiting = true;
        }
        // While an isolated source's datagrams are still being read, overflows are due to that
        // source.
        if self.can_steer && overflowed && !waiting {
            self.sample.get_or_insert_default();
        }
        if let Some(sample) = &mut self.sample {
            let cost = cost(arrival);
            *sample.costs.entry(arrival.from).or_default() += cost;
            sample.total += cost;
        }
    }

    /// Decides whether to isolate or release a source. `buffer` is the size of the shared lane's
    /// buffer, in bytes.
    pub(crate) fn decide(
        &mut self,
        is_peer: impl Fn(IpAddr) -> bool,
        buffer: usize,
        now: Instant,
    ) -> Option<Change> {
        if let Some(sample) = self.sample.take_if(|sample| sample.total >= SAMPLE) {
            let largest = sample.costs.iter().max_by_key(|(_, cost)| **cost);
            if let Some((&source, &cost)) = largest
                && cost * PART > sample.total
                && self.isolate(source, is_peer(source), buffer, now)
            {
                self.is_steered = false;
                return Some(Change::Isolated(source));
            }
        }
        let calm = |since| now.saturating_duration_since(since) >= CALM;
        let lane = self
            .lanes
            .iter_mut()
            .find(|lane| !lane.sources.is_empty() && lane.since.is_some_and(calm))?;
        let sources = lane.sources.clone();
        lane.release(now);
        self.is_steered = false;
        Some(Change::Released(sources))
    }

    /// Assigns a lane to a source. Returns false if none is free.
    fn isolate(&mut self, source: IpAddr, is_peer: bool, buffer: usize, now: Instant) -> bool {
        if self.lanes.iter().any(|lane| lane.sources.contains(&source)) {
            return false;
        }
        let place = if is_peer {
            (STRANGERS + 1..LANES).find(|&lane| !self.lanes[lane].in_use)
        } else {
            Some(STRANGERS)
        };
        let Some(lane) = place.map(|place| &mut self.lanes[place]) else { return false };
        if lane.sources.len() == MAX_STRANGERS {
            lane.sources.remove(0);
        }
        lane.sources.push(source);
        lane.in_use = true;
        lane.leaving = false;
        lane.behind = buffer;
        lane.since = Some(now);
        true
    }

    /// Re-checks the lanes after the peers have changed: a stranger that has become a peer leaves
    /// the lane of strangers, and a former peer leaves its own.
    pub(crate) fn review(
        &mut self,
        is_peer: impl Fn(IpAddr) -> bool,
        now: Instant,
    ) -> Option<Change> {
        let mut released = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate().skip(STRANGERS) {
            let misplaced = |source: &mut IpAddr| is_peer(*source) != (index != STRANGERS);
            let before = released.len();
            released.extend(lane.sources.extract_if(.., misplaced));
            if released.len() > before && lane.sources.is_empty() {
                lane.release(now);
            }
        }
        if released.is_empty() {
            return None;
        }
        self.is_steered = false;
        Some(Change::Released(released))
    }

    /// Returns false if a change has not been applied in the kernel yet.
    pub(crate) fn is_steered(&self) -> bool {
        self.is_steered
    }

    /// Records that the kernel steers datagrams as assigned.
    pub(crate) fn on_steered(&mut self) {
        self.is_steered = true;
    }

    /// Returns the isolated sources and their lanes.
    pub(crate) fn steering(&self) -> impl Iterator<Item = (IpAddr, usize)> + '_ {
        let lanes = self.lanes.iter().enumerate();
        lanes.flat_map(|(index, lane)| lane.sources.iter().map(move |&source| (source, index)))
    }
}

impl Lane {
    fn is_readable(&self) -> bool {
        self.in_use && self.behind == 0
    }

    /// Gives the lane back once it has been drained.
    fn release(&mut self, now: Instant) {
        self.sources.clear();
        self.behind = 0;
        self.leaving = true;
        self.since = Some(now);
    }
}

/// Returns the cost of datagrams in bytes: their share of a receive buffer, and of the time to
/// carry them.
fn cost(arrival: Arrival) -> usize {
    arrival.length + OVERHEAD * arrival.count
}

#[cfg(test)]
mod tests;
