//! Rate-limited log lines about lasting failures.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Interval at which a lasting failure with an unchanged reason is logged again.
const REPEAT: Duration = Duration::from_secs(60);

/// An activity that should work, and whether it does.
///
/// Logs one line when it fails, one when the reason changes, one a minute while the failure lasts,
/// and one when it works again. Failures are rate-limited to one line a second.
#[derive(Debug)]
pub(crate) struct Outage {
    what: String,
    current: Option<Current>,
    /// True if a part has worked since the last failure, although the activity as a whole has not.
    progressed: bool,
}

#[derive(Debug)]
struct Current {
    since: Instant,
    reason: String,
    last_reported: Option<Instant>,
}

impl Outage {
    /// Returns a working activity. `what` names it, after its subject: "lease 10.244.8.0-24:
    /// renewal".
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), current: None, progressed: false }
    }

    /// Records a failure. Returns true if the failure or its reason is new, or if
    /// [`progress`](Self::progress) was called since the last failure.
    pub(crate) fn begin(&mut self, reason: &str) -> bool {
        self.begin_at(reason, Instant::now())
    }

    fn begin_at(&mut self, reason: &str, now: Instant) -> bool {
        let news = self.current.as_ref().is_none_or(|c| c.reason != reason);
        let current = self.current.get_or_insert_with(|| Current {
            since: now,
            reason: String::new(),
            last_reported: None,
        });
        let pause = if news { REPEAT / 60 } else { REPEAT };
        reason.clone_into(&mut current.reason);
        if current
            .last_reported
            .is_none_or(|last_reported| now.duration_since(last_reported) >= pause)
        {
            current.last_reported = Some(now);
            // A failure that has just begun has lasted for no time.
            let seconds = now.duration_since(current.since).as_secs();
            let seconds = (seconds > 0).then_some(seconds);
            warn!(seconds, error = reason, "{} failing; retrying", self.what);
        }
        std::mem::take(&mut self.progressed) || news
    }

    /// Records that a part works: the next failure counts as new, whatever its reason. Logs
    /// nothing.
    pub(crate) fn progress(&mut self) {
        self.progressed = true;
    }

    /// Records that the activity works.
    pub(crate) fn end(&mut self) {
        if let Some(current) = self.current.take() {
            let seconds = current.since.elapsed().as_secs();
            info!(seconds, "{} recovered", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_reason_is_new_only_once() {
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
    fn outage_reason_that_lasts_is_logged_once_a_minute() {
        let mut outage = Outage::new("the watch");
        let start = Instant::now();
        let mut reported = Vec::new();
        for second in 0..150 {
            outage.begin_at("etcd is away", start + Duration::from_secs(second));
            let last = outage.current.as_ref().unwrap().last_reported.unwrap() - start;
            if reported.last() != Some(&last) {
                reported.push(last);
            }
        }
        assert_eq!(reported, [0, 60, 120].map(Duration::from_secs));
    }
}
