//! Monitors the underlay, which joining selected and on which all plans rest. If it changes for
//! good, the daemon ends, and the restart selects it anew.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::interface::{Facts, Requirements, Selection, select};
use heddle_core::node::Underlay;
use heddle_core::site::Site;
use heddle_core::underlay::{Absence, PathMtu, UnderlayState, other_mtu, underlay_state};
use heddle_flags::Flags;
use heddle_kernel::KernelError;
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::egress;
use crate::ports::Dataplane;
use crate::readiness::{Condition, Readiness};

/// Interval of checks without any event.
const PERIOD: Duration = Duration::from_secs(30);

/// Interval of checks while the underlay is not intact.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The underlay has moved for good to another interface or address.
#[derive(Debug, thiserror::Error)]
#[error("underlay: {reason}; exiting for a restart")]
pub(crate) struct Moved {
    reason: String,
    /// True if other hosts have to reach this one at other addresses now.
    pub(crate) readdressed: bool,
}

/// The changes that a check of the underlay depends on.
pub(crate) struct Changes {
    /// Woken when the underlay may have changed.
    pub(crate) underlay: Arc<Notify>,
    /// Public addresses of the peers, if the underlay's MTU depends on the routes to them.
    pub(crate) peers: watch::Receiver<BTreeSet<IpAddr>>,
}

/// Checks the underlay after each event that concerns it, and at intervals.
///
/// # Errors
///
/// [`Moved`], if it has been elsewhere for some time: the daemon has to be restarted. An interface
/// that is down or gone is no error as long as no other can replace it.
pub(crate) async fn follow(
    flags: &Flags,
    site: &Site,
    dataplane: &dyn Dataplane,
    changes: Changes,
    readiness: &Readiness,
) -> Result<(), Moved> {
    let requirements = Requirements::of(&site.config.networks);
    let started_with = &site.node.underlay;
    let published = started_with.public_addresses.into_iter().collect();
    let selection = Selection { published, ..flags.interface.selection() };
    let mut mtu = None;
    let mut look = |facts: &Facts| {
        let found = other_mtu(started_with, requirements.families(), facts);
        let before = std::mem::replace(&mut mtu, found);
        if before != found {
            say_mtu(started_with, before, found);
        }
        underlay_state(started_with, &facts.interfaces, &select(&requirements, &selection, facts))
    };
    let mut absence = Absence::default();
    loop {
        let facts = async {
            let mut facts = dataplane.facts(selection.can_reach).await?;
            let peers = changes.peers.borrow().clone();
            egress::follow(dataplane, started_with, &peers, &mut facts).await?;
            Ok::<_, KernelError>(facts)
        };
        let pause = match facts.await.map(|facts| look(&facts)) {
            Ok(UnderlayState::Intact) => {
                absence.over();
                readiness.met(Condition::Underlay);
                PERIOD
            }
            Ok(UnderlayState::Missing(reason)) => {
                absence.over();
                say(readiness, reason);
                LOOK_AGAIN
            }
            Ok(UnderlayState::Elsewhere { reason, readdressed }) => {
                if absence.is_for_good(clock::now()) {
                    return Err(Moved { reason, readdressed });
                }
                say(readiness, reason);
                LOOK_AGAIN
            }
            // The reconcile loop reads the same and reports the error.
            Err(_) => LOOK_AGAIN,
        };
        let _ = tokio::time::timeout(pause, changes.underlay.notified()).await;
    }
}

/// Logs a change of the underlay's MTU. The MTU is in devices, and in files that other programs
/// have read, so an operator decides when to change it.
fn say_mtu(started_with: &Underlay, before: Option<PathMtu>, found: Option<PathMtu>) {
    let Underlay { link, mtu, .. } = started_with;
    match found {
        Some(PathMtu { link, mtu: found }) => tracing::warn!(
            "underlay: MTU of {link} is {found}, and heddled was started with {mtu}; restart heddled, and then the readers \
             of its files, to use {found}",
        ),
        None => {
            let link = before.map_or(*link, |before| before.link);
            tracing::info!("underlay: MTU of {link} is {mtu} again");
        }
    }
}

fn say(readiness: &Readiness, reason: String) {
    if readiness.unmet(Condition::Underlay, &reason) {
        tracing::warn!("underlay: {reason}");
    }
}

#[cfg(test)]
mod tests;
