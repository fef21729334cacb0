//! Probes peers over the overlay to check that it leads to them, if the operator enabled that.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use heddle_core::lease::Lease;
use heddle_core::probe::Place;
use heddle_core::rate::{Budgets, Digest, Rate};
use heddle_probe::{Health, News, ProbeError, State};
use tokio::sync::mpsc;

use crate::join::Overlay;
use crate::ports::{Host, Prober};

/// The prober, and the addresses at which it probes peers.
pub(crate) struct Probing {
    prober: Box<dyn Prober>,
    news: mpsc::Receiver<News>,
    place: Place,
}

impl Probing {
    /// Starts to probe each peer once per `seconds`. Returns None for 0.
    ///
    /// # Errors
    ///
    /// If no socket can be opened.
    pub(crate) fn start(
        host: &dyn Host,
        seconds: u64,
        overlay: &Overlay,
    ) -> Result<Option<Self>, ProbeError> {
        if seconds == 0 {
            return Ok(None);
        }
        let place = Place::of(&overlay.planned.site.lease, &overlay.planned.plan.plan);
        let (prober, news) = host.prober(Duration::from_secs(seconds))?;
        Ok(Some(Self { prober, news, place }))
    }

    /// Replaces the set of peers to probe.
    pub(crate) fn watch<'a>(&self, peers: impl Iterator<Item = &'a Lease>) {
        self.prober.watch(peers.flat_map(|peer| self.place.addresses(peer)).collect());
    }

    /// Waits for the next change of reachability of an address. Never returns once the prober has
    /// ended.
    pub(crate) async fn news(&mut self) -> News {
        loop {
            match self.news.recv().await {
                Some(News { address, state: State::Unreachable })
                    if self.judged(address).is_some_and(|it| it.state == State::Unknown) => {}
                Some(news) => return news,
                None => std::future::pending().await,
            }
        }
    }

    /// Returns the health of an address. A bridge that has never answered may not exist, so its
    /// silence says nothing.
    fn judged(&self, address: IpAddr) -> Option<Health> {
        let health = self.prober.health(address)?;
        let says_nothing = health.state == State::Unreachable
            && health.round_trip.is_none()
            && self.place.is_of_bridge(address);
        Some(if says_nothing { Health { state: State::Unknown, ..health } } else { health })
    }

    /// Returns true if a peer is probed at this address.
    pub(crate) fn is_of(&self, address: IpAddr, peer: &Lease) -> bool {
        self.place.addresses(peer).any(|asked| asked == address)
    }

    /// Returns the health of a peer, the worst of its addresses. None if none is probed.
    pub(crate) fn health(&self, peer: &Lease) -> Option<Health> {
        let known = self.place.addresses(peer).filter_map(|address| self.judged(address));
        known.reduce(Health::worst)
    }

    /// Returns true if a peer is probed and does not answer.
    pub(crate) fn is_unreachable(&self, peer: &Lease) -> bool {
        self.health(peer).is_some_and(|health| health.state == State::Unreachable)
    }
}

/// Rate limits of log lines that name a single peer which stopped answering or answers again.
const NAMED: Budgets = Budgets {
    subject: Rate { burst: 3, interval: Duration::from_secs(60) },
    kind: Rate { burst: 5, interval: Duration::from_secs(10) },
    total: Rate { burst: 5, interval: Duration::from_secs(10) },
    subjects: 1000,
};

/// Delay from the first peer that was not named until the summary.
const SUMMARY_DELAY: Duration = Duration::from_secs(5);

/// Decides which peers that stop answering, or answer again, are named in the log, and schedules
/// the summary of the others. Two thousand peers that stop at once are one fault.
pub(crate) struct Reachability {
    silent: Digest,
    answering: Digest,
}

impl Reachability {
    /// Creates the limits, with nothing reported yet.
    pub(crate) fn new() -> Self {
        let digest = || Digest::new(NAMED, SUMMARY_DELAY);
        Self { silent: digest(), answering: digest() }
    }

    /// Returns true if the rate limit permits naming this peer.
    pub(crate) fn admit(&mut self, News { address, state }: News, now: Instant) -> bool {
        let digest = match state {
            State::Unreachable => &mut self.silent,
            State::Reachable | State::Unknown => &mut self.answering,
        };
        digest.admit(&address.to_string(), now)
    }

    /// Returns the time at which a summary is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.silent.due().into_iter().chain(self.answering.due()).min()
    }

    /// Returns true if a summary is due now, and resets both digests.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        // Takes both, so that one line summarises both.
        let silent = self.silent.take(now);
        self.answering.take(now) || silent
    }
}

#[cfg(test)]
mod tests;
