//! Whether the underlay is still there. What it is was found out at the start, and all plans rest on it; when it changes
//! for good, the daemon ends, and the start that follows finds out anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_core::config::NetworkConfig;
use heddle_core::interface::{Facts, select};
use heddle_core::node::Underlay;
use heddle_core::underlay::{Standing, standing};
use heddle_flags::Flags;
use heddle_kernel::Kernel;
use tokio::sync::Notify;

use crate::join::families;
use crate::readiness::{Condition, Readiness};

/// How often it is looked at even if nothing seems to have happened.
const PERIOD: Duration = Duration::from_secs(30);

/// How often it is looked at while it is not as it should be.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long it has to be elsewhere before that is taken for good. Whoever configures a host's network anew takes its
/// addresses and routes away first, and a DHCP server may take seconds to give them back.
const SETTLED: Duration = Duration::from_secs(10);

/// The underlay is elsewhere for good.
#[derive(Debug, thiserror::Error)]
#[error("underlay: {reason}: this one ends")]
pub(crate) struct Moved {
    reason: String,
    /// Whether other hosts have to reach this one by other addresses now.
    pub(crate) readdressed: bool,
}

/// Looks at the underlay whenever something happens to it.
///
/// # Errors
///
/// [`Moved`], when it has been elsewhere for some time: the daemon has to be started again. It is not when the interface is down or
/// gone and there is no other.
pub(crate) async fn follow(
    flags: &Flags,
    config: &NetworkConfig,
    started_with: &Underlay,
    kernel: &Kernel,
    changed: Arc<Notify>,
    readiness: &Readiness,
) -> Result<(), Moved> {
    let families = families(config);
    let selection = flags.interface.selection();
    let look = |facts: &Facts| {
        standing(started_with, &facts.interfaces, &select(&families, &selection, facts))
    };
    let mut patience = Patience::default();
    loop {
        let pause = match kernel.facts(selection.can_reach).await.map(|facts| look(&facts)) {
            Ok(Standing::Intact) => {
                patience.intact();
                readiness.met(Condition::Underlay);
                PERIOD
            }
            Ok(Standing::Missing(reason)) => {
                patience.intact();
                say(readiness, reason);
                LOOK_AGAIN
            }
            Ok(Standing::Elsewhere { reason, readdressed }) => {
                if patience.ends(Instant::now()) {
                    return Err(Moved { reason, readdressed });
                }
                say(readiness, reason);
                LOOK_AGAIN
            }
            // The loop that makes the plan hold reads the same, and says so.
            Err(_) => LOOK_AGAIN,
        };
        let _ = tokio::time::timeout(pause, changed.notified()).await;
    }
}

fn say(readiness: &Readiness, reason: String) {
    if readiness.unmet(Condition::Underlay, &reason) {
        tracing::warn!("underlay: {reason}");
    }
}

/// How long the underlay has been elsewhere, without a break.
#[derive(Debug, Default)]
struct Patience {
    since: Option<Instant>,
}

impl Patience {
    fn intact(&mut self) {
        self.since = None;
    }

    /// Whether it has been for long enough.
    fn ends(&mut self, now: Instant) -> bool {
        now - *self.since.get_or_insert(now) >= SETTLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_to_be_elsewhere_all_the_time() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert!(!patience.ends(start));
        assert!(!patience.ends(start + SETTLED - Duration::from_millis(1)));
        patience.intact();
        assert!(!patience.ends(start + SETTLED));
        assert!(!patience.ends(start + 2 * SETTLED - Duration::from_millis(1)));
        assert!(patience.ends(start + 2 * SETTLED));
    }
}
