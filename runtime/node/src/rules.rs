//! The timing of traffic rules: schedules their checks. The rules themselves, and how they get into
//! the kernel, are `heddle-firewall`'s.

use std::convert::Infallible;
use std::time::Duration;

use heddle_control::EventKind;
use heddle_core::pacing::DutyCycle;
use heddle_core::site::Site;
use heddle_firewall::{FamilyRules, Masquerade, Mode, Rules};
use heddle_flags::Flags;
use heddle_telemetry::History;

use crate::clock;
use crate::ports::Ruleset;
use crate::readiness::{Condition, Readiness};

/// Limits checks to a tenth of the time, with a pause of half a second at least: after a check that
/// took 100 ms, the next starts at least 900 ms later, or when the resync is due. On hosts where
/// containers come and go, programs change rules all the time.
const DUTY: DutyCycle = DutyCycle::one_in(10).pause_at_least(Duration::from_millis(500));

/// Returns the rules that this node should have.
pub(crate) fn wanted(flags: &Flags, site: &Site) -> Rules {
    let Site { config, lease, .. } = site;
    let families = config.networks.zip(lease.families.as_ref());
    let asked = &flags.rules;
    Rules {
        network_name: flags.lease.network_name(),
        families: families
            .map(|(overlay, own)| FamilyRules { network: overlay.network, subnet: own.subnet }),
        masquerade: asked
            .ip_masq
            .then_some(Masquerade { random_fully: !asked.ip_masq_fully_random_disable }),
        forward: asked.iptables_forward_rules,
        mode: if config.nftables { Mode::Nftables } else { Mode::Iptables },
    }
}

/// Keeps the rules in place: checks them at once, after each change of rules by a program, and at
/// the latest after `resync`.
pub(crate) async fn follow(
    mut ruleset: Box<dyn Ruleset>,
    resync: Duration,
    readiness: &Readiness,
    history: &History,
) -> Infallible {
    if let Some(reason) = ruleset.deaf() {
        let seconds = resync.as_secs();
        tracing::warn!(error = %reason, "rules: no notifications of changes; checking every {seconds} s instead");
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
                    tracing::error!("rules: {error}");
                }
            }
        }
        tokio::time::sleep(pause(clock::now() - begun, resync)).await;
        // This check's own repairs also count as changes. The check that they cause finds nothing
        // to do.
        let left = resync.saturating_sub(clock::now() - begun);
        let _ = tokio::time::timeout(left, ruleset.changed()).await;
    }
}

/// Returns the pause after a check, at most `resync`. A check that waited for another program's
/// lock, as iptables does, is slow once, and is no reason to leave rules unchecked for minutes.
fn pause(took: Duration, resync: Duration) -> Duration {
    DUTY.pause_at_most(resync).pause(took)
}

#[cfg(test)]
mod tests;
