//! Asking peers over the overlay whether it leads to them, where an operator wants that.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use heddle_core::lease::Lease;
use heddle_core::probe::Place;
use heddle_core::rate::{Budgets, Digest, Rate};
use heddle_probe::{Health, News, ProbeError, State};
use tokio::sync::mpsc;

use crate::join::Overlay;
use crate::ports::{Host, Prober};

/// The peers that are asked.
pub(crate) struct Probing {
    prober: Box<dyn Prober>,
    news: mpsc::Receiver<News>,
    place: Place,
}

impl Probing {
    /// Asks each peer once in so many seconds; none for 0.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub(crate) fn start(
        host: &dyn Host,
        seconds: u64,
        overlay: &Overlay,
    ) -> Result<Option<Self>, ProbeError> {
        if seconds == 0 {
            return Ok(None);
        }
        let place = Place::of(&overlay.lease, &overlay.plan.plan);
        let (prober, news) = host.prober(Duration::from_secs(seconds))?;
        Ok(Some(Self { prober, news, place }))
    }

    /// Asks these peers from now on.
    pub(crate) fn watch<'a>(&self, peers: impl Iterator<Item = &'a Lease>) {
        self.prober.watch(peers.flat_map(|peer| self.place.addresses(peer)).collect());
    }

    /// An address that answers or no longer does, and never without one.
    pub(crate) async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// Whether an address is that at which a peer is asked.
    pub(crate) fn is_of(&self, address: IpAddr, peer: &Lease) -> bool {
        self.place.addresses(peer).any(|asked| asked == address)
    }

    /// What is known of a peer: the worst of what is known of its addresses.
    pub(crate) fn health(&self, peer: &Lease) -> Option<Health> {
        let known = self.place.addresses(peer).filter_map(|address| self.prober.health(address));
        known.reduce(Health::worst)
    }

    /// Returns true if a peer is asked and does not answer.
    pub(crate) fn is_unreachable(&self, peer: &Lease) -> bool {
        self.health(peer).is_some_and(|health| health.state == State::Unreachable)
    }
}

/// Rate limits within which peers that turn silent, or answer again, are named one by one.
const NAMED: Budgets = Budgets {
    subject: Rate { burst: 3, interval: Duration::from_secs(60) },
    kind: Rate { burst: 5, interval: Duration::from_secs(10) },
    total: Rate { burst: 5, interval: Duration::from_secs(10) },
    subjects: 1000,
};

/// Time from the first that is not named until all are summed up.
const SUMMARY_DELAY: Duration = Duration::from_secs(5);

/// Decides which peers that turn silent or answer again are named, and when the others are summed up: two thousand that turn
/// silent at once are one fault.
pub(crate) struct Reachability {
    silent: Digest,
    answering: Digest,
}

impl Reachability {
    /// Nothing was said yet.
    pub(crate) fn new() -> Self {
        let digest = || Digest::new(NAMED, SUMMARY_DELAY);
        Self { silent: digest(), answering: digest() }
    }

    /// Returns true if a peer that has become so is named.
    pub(crate) fn admit(&mut self, News { address, state }: News, now: Instant) -> bool {
        let digest = match state {
            State::Unreachable => &mut self.silent,
            State::Reachable | State::Unknown => &mut self.answering,
        };
        digest.admit(&address.to_string(), now)
    }

    /// Returns when a summary is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.silent.due().into_iter().chain(self.answering.due()).min()
    }

    /// Returns true if a summary is due now, and begins the next.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        // Both are taken, so that one line says it.
        let silent = self.silent.take(now);
        self.answering.take(now) || silent
    }
}
