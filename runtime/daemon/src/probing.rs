//! Asking peers over the overlay whether it leads to them, where an operator wants that.

use std::net::IpAddr;
use std::time::Duration;

use heddle_core::lease::Lease;
use heddle_core::probe::Place;
use heddle_probe::{Health, News, ProbeError, Prober};
use tokio::sync::mpsc;

use crate::join::Overlay;

/// The peers that are asked.
pub(crate) struct Probing {
    prober: Prober,
    news: mpsc::Receiver<News>,
    place: Place,
}

impl Probing {
    /// Asks each peer once in so many seconds; none for 0.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub(crate) fn start(seconds: u64, overlay: &Overlay) -> Result<Option<Self>, ProbeError> {
        if seconds == 0 {
            return Ok(None);
        }
        let place = Place::of(&overlay.lease, &overlay.plan.plan);
        let (prober, news) = Prober::start(Duration::from_secs(seconds))?;
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
}
