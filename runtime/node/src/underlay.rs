//! Whether the underlay is still there. What it is was found out at the start, and all plans rest on it; when it changes
//! for good, the daemon ends, and the start that follows finds out anew.

use std::sync::Arc;
use std::time::Duration;

use heddle_core::config::NetworkConfig;
use heddle_core::interface::{Facts, select};
use heddle_core::node::Underlay;
use heddle_core::underlay::{Absence, Standing, other_mtu, standing};
use heddle_flags::Flags;
use tokio::sync::Notify;

use crate::clock;
use crate::join::families;
use crate::ports::Dataplane;
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
    dataplane: &dyn Dataplane,
    changed: Arc<Notify>,
    readiness: &Readiness,
) -> Result<(), Moved> {
    let families = families(config);
    let selection = flags.interface.selection();
    let mut mtu = None;
    let mut look = |facts: &Facts| {
        let found = other_mtu(started_with, &facts.interfaces);
        if std::mem::replace(&mut mtu, found) != found {
            say_mtu(started_with, found);
        }
        standing(started_with, &facts.interfaces, &select(&families, &selection, facts))
    };
    let mut absence = Absence::default();
    loop {
        let pause = match dataplane.facts(selection.can_reach).await.map(|facts| look(&facts)) {
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
                if absence.is_for_good(clock::now()) {
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

/// How wide packets may be is in devices and in files that others have read, so when to change it is for an operator to say.
fn say_mtu(started_with: &Underlay, found: Option<u32>) {
    let Underlay { link, mtu, .. } = started_with;
    match found {
        Some(found) => tracing::warn!(
            "underlay: interface {link} has MTU {found}, and this daemon was started with {mtu}: restart heddled, and then \
             what reads its files, to use {found}",
        ),
        None => tracing::info!("underlay: interface {link} has MTU {mtu} again"),
    }
}

fn say(readiness: &Readiness, reason: String) {
    if readiness.unmet(Condition::Underlay, &reason) {
        tracing::warn!("underlay: {reason}");
    }
}
