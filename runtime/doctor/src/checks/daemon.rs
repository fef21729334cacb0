//! Checks that the daemon runs and is ready.

use std::path::PathBuf;

use heddle_control::STARTING;
use heddle_core::text::list;

use crate::facts::unit::{Daemon, Instance, Unit};
use crate::report::{Finding, Severity};

const CHECK: &str = "daemon";

/// Symptom of a daemon that does not run.
const LEAVING: &str = "This node's lease expires a day after its last renewal, and changes of other nodes are not applied";

/// Returns a finding if nothing on this host belongs to the instance: neither a running daemon, nor
/// a unit that is enabled, nor a file.
pub(crate) fn check_instance(
    instance: &Instance,
    daemon: &Daemon,
    unit: Option<&Unit>,
) -> Option<Finding> {
    let Instance { name, sources, has_files, others } = instance;
    let in_use = |unit: &Unit| unit.enabled || unit.state != "inactive";
    if *has_files || *daemon != Daemon::Absent || unit.is_some_and(in_use) {
        return None;
    }
    let sources = list(sources.iter().map(|path| path.display()));
    let others = match others.as_slice() {
        [] => "this host has none".to_owned(),
        others => format!("those of this host are {}", list(others)),
    };
    Some(Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!(
            "there is no instance {name}: none of {sources} exists, and heddled@{name}.service is not enabled"
        ),
        symptom: format!("Nothing of {name} can be checked, and nothing was"),
        remedy: format!("Correct the name after -i ({others}), or create its environment file:"),
        command: Some("ls /etc/default/heddled@*".to_owned()),
    })
}

/// `unit` is the daemon's, if systemd knows it. A stopped daemon that is not enabled is a problem only
/// if there are files that it has `written`.
pub(crate) fn check(daemon: &Daemon, unit: Option<&Unit>, written: &[PathBuf]) -> Vec<Finding> {
    match daemon {
        Daemon::Answers(status) => {
            // What comes after an obstacle of the start is not checked yet.
            let unmet = || status.unmet.iter();
            let explained = unmet().any(|unmet| unmet.reason != STARTING);
            let shown = unmet().filter(|unmet| !explained || unmet.reason != STARTING);
            shown.map(|unmet| not_ready(&unmet.condition, &unmet.reason)).collect()
        }
        Daemon::Absent => {
            let stopped = || stopped(unit, written);
            unit.and_then(not_running).or_else(stopped).into_iter().collect()
        }
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

/// Checks that the running config is the one in the store, which is valid: other checks report one
/// that is not.
pub(crate) fn check_config(daemon: &Daemon) -> Option<Finding> {
    let Daemon::Answers(status) = daemon else { return None };
    let reason = status.superseded.as_deref()?;
    Some(Finding {
        check: CHECK,
        severity: Severity::Warning,
        problem: format!("network config: {reason}"),
        symptom: "This node runs with another config than nodes that start now".to_owned(),
        remedy: "Once the config in the store is what you want, restart heddled on every node:"
            .to_owned(),
        command: Some("systemctl restart heddled".to_owned()),
    })
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
        symptom: LEAVING.to_owned(),
        remedy: format!("`journalctl -u {name}` shows why it ended. Start it:"),
        command: Some(format!("systemctl start {name}")),
    })
}

/// Returns the finding for a daemon that has run, and that nothing starts again.
fn stopped(unit: Option<&Unit>, written: &[PathBuf]) -> Option<Finding> {
    let file = written.first()?.display();
    let name = unit.map(|unit| &unit.name);
    let (remedy, command) = match name {
        Some(name) => (
            "Start it, also at the boot; if the node is to leave, see \"Taking a node out\" in docs/operation.md:",
            Some(format!("systemctl enable --now {name}")),
        ),
        None => ("Start it with these flags.", None),
    };
    Some(Finding {
        check: CHECK,
        severity: Severity::Warning,
        problem: format!(
            "heddled is not running, but has run and written {file}, which other programs still use"
        ),
        symptom: LEAVING.to_owned(),
        remedy: remedy.to_owned(),
        command,
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
        check(daemon, unit, &[]).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn stopped_daemon_with_files_is_reported() {
        let files = [PathBuf::from("/run/flannel/subnet.env")];
        let disabled = unit(false, "inactive", "success");
        for (unit, command) in
            [(Some(&disabled), Some("systemctl enable --now heddled.service")), (None, None)]
        {
            let found = check(&Daemon::Absent, unit, &files);
            assert!(found[0].problem.contains("written /run/flannel/subnet.env"), "{}", found[0]);
            assert_eq!(found[0].command.as_deref(), command);
        }
        assert_eq!(check(&Daemon::Unknown(String::new()), None, &files), []);
    }

    #[test]
    fn instance_without_any_trace_is_reported() {
        let none = Instance {
            name: "blue".into(),
            sources: vec!["/etc/default/heddled@blue".into()],
            others: vec!["green".into()],
            ..Instance::default()
        };
        // systemd loads the template for any name.
        let loaded = unit(false, "inactive", "success");
        let found = check_instance(&none, &Daemon::Absent, Some(&loaded)).unwrap();
        assert!(found.problem.starts_with("there is no instance blue: "), "{found}");
        assert!(found.remedy.contains("those of this host are green"), "{found}");
        assert!(check_instance(&none, &Daemon::Absent, None).is_some());
        let enabled = unit(true, "inactive", "success");
        assert!(check_instance(&none, &Daemon::Absent, Some(&enabled)).is_none());
        let ready = Daemon::Answers(Box::default());
        assert!(check_instance(&none, &ready, None).is_none());
        let configured = Instance { has_files: true, ..none };
        assert!(check_instance(&configured, &Daemon::Absent, None).is_none());
    }

    #[test]
    fn changed_config_is_a_warning_until_the_restart() {
        let superseded = Some("changed in the store: `SubnetLen` from 24 to 25".to_owned());
        let status = Status { ready: true, superseded, ..Status::default() };
        let found = check_config(&Daemon::Answers(Box::new(status))).unwrap();
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.problem.contains("`SubnetLen` from 24 to 25"), "{}", found.problem);
        let unchanged = Daemon::Answers(Box::new(Status { ready: true, ..Status::default() }));
        assert_eq!(check_config(&unchanged), None);
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
