//! Traffic rules: when they are looked at. What they are, and how they get into the kernel, is `heddle-firewall`'s.

use std::time::{Duration, Instant};

use heddle_control::EventKind;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::Lease;
use heddle_firewall::{FamilyRules, Firewall, Masquerade, Mode, Rules};
use heddle_flags::Flags;
use heddle_kernel::{Kernel, RulesetChanges};
use heddle_telemetry::History;
use tokio::task::spawn_blocking;

use crate::Fatal;
use crate::readiness::{Condition, Readiness};

/// The least time between two looks, however often somebody changes rules.
const PAUSE: Duration = Duration::from_millis(500);

/// A look may take a tenth of the time: after one that took 100 ms, the next is at least 900 ms later, unless it is due
/// by then. Where containers come and go, somebody changes rules all the time.
const SHARE: u32 = 9;

/// What should hold on this node.
pub(crate) fn rules(flags: &Flags, config: &NetworkConfig, lease: &Lease) -> Rules {
    let families = config.networks.iter().zip(&lease.families);
    let asked = &flags.rules;
    Rules {
        network_name: flags.lease.network_name(),
        families: families
            .map(|(overlay, own)| FamilyRules { network: overlay.network, subnet: own.subnet })
            .collect(),
        masquerade: asked
            .ip_masq
            .then_some(Masquerade { random_fully: !asked.ip_masq_fully_random_disable }),
        forward: asked.iptables_forward_rules,
        mode: if config.nftables { Mode::Nftables } else { Mode::Iptables },
    }
}

/// Has the rules hold from now on: looks at once, then whenever somebody changed rules, and at the latest after
/// `resync`.
///
/// # Errors
///
/// Never, but where the daemon itself is broken.
pub(crate) async fn follow(
    rules: Rules,
    kernel: &Kernel,
    resync: Duration,
    readiness: &Readiness,
    history: &History,
) -> Result<(), Fatal> {
    let mut changes = match kernel.ruleset_changes() {
        Ok(changes) => Some(changes),
        Err(error) => {
            let seconds = resync.as_secs();
            tracing::warn!("traffic rules are looked at every {seconds} s only: {error}");
            None
        }
    };
    let mut firewall = Firewall::new(rules);
    let mut held = false;
    loop {
        let begun = Instant::now();
        let (returned, looked) = spawn_blocking(move || {
            let looked = firewall.ensure();
            (firewall, looked)
        })
        .await?;
        firewall = returned;
        match looked {
            Ok(done) => {
                for line in done {
                    tracing::info!("{line}");
                    if held {
                        history.note(EventKind::Drift, line);
                    }
                }
                held = true;
                readiness.met(Condition::Rules);
            }
            Err(error) => {
                if readiness.unmet(Condition::Rules, &error) {
                    tracing::error!("{error}");
                }
            }
        }
        tokio::time::sleep(pause(begun.elapsed(), resync)).await;
        // What was just done is told as well: the next look finds nothing to do.
        let left = resync.saturating_sub(begun.elapsed());
        let _ = tokio::time::timeout(left, changed(&mut changes)).await;
    }
}

/// How long nothing is looked at after a look. A program that waited for another, as those of iptables do, takes its
/// time once, and is no reason to leave rules unlooked at for minutes.
fn pause(took: Duration, resync: Duration) -> Duration {
    PAUSE.max(took * SHARE).min(resync)
}

async fn changed(changes: &mut Option<RulesetChanges>) {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_take_long_are_rarer_but_never_overdue() {
        let resync = Duration::from_secs(5);
        for (took, expected) in [(1, 500), (100, 900), (15_000, 5000)] {
            assert_eq!(pause(Duration::from_millis(took), resync), Duration::from_millis(expected));
        }
    }
}
