//! Whether the underlay is still there. What it is was found out at the start, and all plans rest on it; when it changes
//! for good, the daemon ends, and the start that follows finds out anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_core::config::NetworkConfig;
use heddle_core::interface::{Facts, select};
use heddle_core::node::Underlay;
use heddle_core::underlay::{Absence, Standing, standing};
use heddle_flags::Flags;
use heddle_kernel::Kernel;
use tokio::sync::Notify;

use crate::join::families;
use crate::readiness::{Condition, Readiness};

/// How often it is looked at even if nothing seems to have happened.
const PERIOD: Duration = Duration::from_secs(30);

/// How often it is looked at while it is not as it should be.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    let mut absence = Absence::default();
    loop {
        let pause = match kernel.facts(selection.can_reach).await.map(|facts| look(&facts)) {
            Ok(Standing::Intact) => {
                absence.over();
                readiness.met(Condition::Underlay);
                PERIOD
            }
            Ok(Standing::Missing(reason)) => {
                absence.over();
                say(readiness, reason);
                LOOK_AGAIN
            }
            Ok(Standing::Elsewhere { reason, readdressed }) => {
                if absence.is_for_good(Instant::now()) {
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
