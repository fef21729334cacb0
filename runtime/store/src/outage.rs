//! Saying that something does not work without filling the log.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// How often a lasting reason is repeated.
const REPEAT: Duration = Duration::from_secs(60);

/// A thing that should work, and whether it does.
///
/// The log gets a line when it stops working, one when the reason changes, one a minute while it lasts, but never
/// more than one a second, and one when it works again.
#[derive(Debug)]
pub(crate) struct Outage {
    what: String,
    current: Option<Current>,
    /// True if something worked since the last failure, without the whole working again.
    progressed: bool,
}

#[derive(Debug)]
struct Current {
    since: Instant,
    reason: String,
    said: Option<Instant>,
}

impl Outage {
    /// `what` is a noun: "the watch", "the lease 10.244.8.0-24".
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), current: None, progressed: false }
    }

    /// It does not work. True when that is news, or the reason is.
    pub(crate) fn begin(&mut self, reason: &str) -> bool {
        self.begin_at(reason, Instant::now())
    }

    fn begin_at(&mut self, reason: &str, now: Instant) -> bool {
        let news = self.current.as_ref().is_none_or(|c| c.reason != reason);
        let current = self.current.get_or_insert_with(|| Current {
            since: now,
            reason: String::new(),
            said: None,
        });
        let pause = if news { REPEAT / 60 } else { REPEAT };
        reason.clone_into(&mut current.reason);
        if current.said.is_none_or(|said| now.duration_since(said) >= pause) {
            current.said = Some(now);
            let seconds = now.duration_since(current.since).as_secs();
            warn!(seconds, "{}: {reason}", self.what);
        }
        std::mem::take(&mut self.progressed) || news
    }

    /// Takes note that a part works: the next failure is news, whatever its reason. The log is spared.
    pub(crate) fn progress(&mut self) {
        self.progressed = true;
    }

    /// It works.
    pub(crate) fn end(&mut self) {
        if let Some(current) = self.current.take() {
            let seconds = current.since.elapsed().as_secs();
            info!(seconds, "{}: works again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_news_once() {
        let mut outage = Outage::new("the watch");
        assert!(outage.begin("etcd is away"));
        assert!(!outage.begin("etcd is away"));
        outage.progress();
        assert!(outage.begin("etcd is away"));
        assert!(!outage.begin("etcd is away"));
        assert!(outage.begin("the certificate has expired"));
        outage.end();
        assert!(outage.begin("the certificate has expired"));
    }

    #[test]
    fn a_lasting_reason_is_logged_once_a_minute() {
        let mut outage = Outage::new("the watch");
        let start = Instant::now();
        let mut said = Vec::new();
        for second in 0..150 {
            outage.begin_at("etcd is away", start + Duration::from_secs(second));
            let last = outage.current.as_ref().unwrap().said.unwrap() - start;
            if said.last() != Some(&last) {
                said.push(last);
            }
        }
        assert_eq!(said, [0, 60, 120].map(Duration::from_secs));
    }
}
