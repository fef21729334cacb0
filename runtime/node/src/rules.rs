//! Traffic rules: when they are looked at. What they are, and how they get into the kernel, is `heddle-firewall`'s.

use std::time::Duration;

use heddle_control::EventKind;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::Lease;
use heddle_firewall::{FamilyRules, Masquerade, Mode, Rules};
use heddle_flags::Flags;
use heddle_telemetry::History;

use crate::clock;
use crate::ports::Ruleset;
use crate::readiness::{Condition, Readiness};

/// The least time between two looks, however often somebody changes rules.
const PAUSE: Duration = Duration::from_millis(500);

/// A look may take a tenth of the time: after one that took 100 ms, the next is at least 900 ms later, unless it is due
/// by then. Where containers come and go, somebody changes rules all the time.
const SHARE: u32 = 9;

/// What should hold on this node.
pub(crate) fn wanted(flags: &Flags, config: &NetworkConfig, lease: &Lease) -> Rules {
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

/// Keeps the rules: checks them at once, then whenever a program has changed rules, and at the latest after `resync`.
pub(crate) async fn follow(
    mut ruleset: Box<dyn Ruleset>,
    resync: Duration,
    readiness: &Readiness,
    history: &History,
) {
    if let Some(reason) = ruleset.deaf() {
        let seconds = resync.as_secs();
        tracing::warn!("traffic rules are looked at every {seconds} s only: {reason}");
    }
    let mut held = false;
    loop {
        let begun = clock::now();
        match ruleset.ensure().await {
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
        tokio::time::sleep(pause(clock::now() - begun, resync)).await;
        // The repairs of this check are heard as changes, too: the next check finds nothing to do.
        let left = resync.saturating_sub(clock::now() - begun);
        let _ = tokio::time::timeout(left, ruleset.changed()).await;
    }
}

/// How long nothing is looked at after a look. A program that waited for another, as those of iptables do, takes its
/// time once, and is no reason to leave rules unlooked at for minutes.
fn pause(took: Duration, resync: Duration) -> Duration {
    PAUSE.max(took * SHARE).min(resync)
}

#[cfg(test)]
mod tests;
