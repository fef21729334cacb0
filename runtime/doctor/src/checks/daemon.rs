//! Checks that the daemon runs and is ready.

use heddle_control::STARTING;

use crate::facts::unit::{Daemon, Unit};
use crate::report::{Finding, Severity};

const CHECK: &str = "daemon";

/// `unit` is the daemon's, if systemd knows it. A stopped daemon that is not enabled is no problem.
pub(crate) fn check(daemon: &Daemon, unit: Option<&Unit>) -> Vec<Finding> {
    match daemon {
        Daemon::Answers(status) => {
            // What comes after an obstacle of the start is not checked yet.
            let unmet = || status.unmet.iter();
            let explained = unmet().any(|unmet| unmet.reason != STARTING);
            let shown = unmet().filter(|unmet| !explained || unmet.reason != STARTING);
            let unmet = shown.map(|unmet| not_ready(&unmet.condition, &unmet.reason));
            unmet.chain(status.superseded.as_deref().map(superseded)).collect()
        }
        Daemon::Absent => unit.and_then(not_running).into_iter().collect(),
        Daemon::Silent(reason) => vec![silent(reason)],
        Daemon::Unknown(_) => vec![],
    }
}

fn not_ready(condition: &str, reason: &str) -> Finding {
    Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!("heddled is not ready, {condition}: {reason}"),
        symptom: "`systemctl start heddled` blocks, and `/readyz` returns 503".to_owned(),
        remedy: "Fix the reason, or the other finding here that has the same cause. heddled then becomes ready by itself.".to_owned(),
        command: None,
    }
}

fn superseded(reason: &str) -> Finding {
    Finding {
        check: CHECK,
        severity: Severity::Warning,
        problem: format!("network config: {reason}"),
        symptom: "This node runs with another config than nodes that start now".to_owned(),
        remedy: "Once the config in the store is what you want, restart heddled on every node:"
            .to_owned(),
        command: Some("systemctl restart heddled".to_owned()),
    }
}

fn not_running(unit: &Unit) -> Option<Finding> {
    let Unit { name, enabled, state, result } = unit;
    let wanted = *enabled || state != "inactive";
    wanted.then(|| Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: match result.as_str() {
            "success" => format!("heddled is not running: {name} is {state}"),
            _ => format!("heddled is not running: {name} is {state} ({result})"),
        },
        symptom: "This node's lease expires a day after its last renewal, and changes of other nodes are not applied".to_owned(),
        remedy: format!("`journalctl -u {name}` shows why it ended. Start it:"),
        command: Some(format!("systemctl start {name}")),
    })
}

fn silent(reason: &str) -> Finding {
    Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: reason.to_owned(),
        symptom: "`heddle status` fails".to_owned(),
        remedy: "Restart heddled if the problem persists:".to_owned(),
        command: Some("systemctl restart heddled".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use heddle_control::{Status, UnmetCondition};

    use super::*;

    fn unit(enabled: bool, state: &str, result: &str) -> Unit {
        Unit { name: "heddled.service".into(), enabled, state: state.into(), result: result.into() }
    }

    fn problems(daemon: &Daemon, unit: Option<&Unit>) -> Vec<String> {
        check(daemon, unit).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn changed_config_is_a_warning_until_the_restart() {
        let superseded = Some("changed in the store: `SubnetLen` from 24 to 25".to_owned());
        let status = Status { ready: true, superseded, ..Status::default() };
        let found = check(&Daemon::Answers(Box::new(status)), None);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Warning));
        assert!(found[0].problem.contains("`SubnetLen` from 24 to 25"), "{}", found[0].problem);
    }

    #[test]
    fn ready_daemon_has_no_finding() {
        let ready = Daemon::Answers(Box::new(Status { ready: true, ..Status::default() }));
        assert_eq!(problems(&ready, Some(&unit(true, "active", "success"))), [""; 0]);
    }

    #[test]
    fn every_unmet_condition_is_a_finding() {
        let unmet = |condition: &str, reason: &str| UnmetCondition {
            condition: condition.into(),
            reason: reason.into(),
        };
        let found = |unmet: Vec<UnmetCondition>| {
            let status = Status { unmet, ..Status::default() };
            problems(&Daemon::Answers(Box::new(status)), None)
        };
        let gone = [unmet("watch", "etcd is gone"), unmet("emitters", "/run is full")];
        assert_eq!(
            found(gone.to_vec()),
            [
                "heddled is not ready, watch: etcd is gone",
                "heddled is not ready, emitters: /run is full"
            ]
        );
        // Conditions that the start has not got to say nothing beside the reason why.
        assert_eq!(found(vec![gone[0].clone(), unmet("kernel", "starting")]).len(), 1);
        assert_eq!(found(vec![unmet("lease", "starting"), unmet("kernel", "starting")]).len(), 2);
    }

    #[test]
    fn absent_daemon_is_reported_if_unit_should_run() {
        assert_eq!(problems(&Daemon::Absent, None), [""; 0]);
        assert_eq!(problems(&Daemon::Absent, Some(&unit(false, "inactive", "success"))), [""; 0]);
        assert_eq!(
            problems(&Daemon::Absent, Some(&unit(true, "inactive", "success"))),
            ["heddled is not running: heddled.service is inactive"]
        );
        assert_eq!(
            problems(&Daemon::Absent, Some(&unit(false, "failed", "watchdog"))),
            ["heddled is not running: heddled.service is failed (watchdog)"]
        );
    }
}
