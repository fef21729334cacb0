//! The report: findings, and checks that were skipped.

use std::fmt;

use serde::Serialize;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The overlay does not work, in whole or in part.
    Error,
    /// The overlay works, but not for long, or not for everything.
    Warning,
}

/// A problem of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check, for programs: `udp-port`.
    pub check: &'static str,
    /// Severity of the problem.
    pub severity: Severity,
    /// The problem, with the names of the objects concerned.
    pub problem: String,
    /// Symptom that users see.
    pub symptom: String,
    /// Action that fixes the problem.
    pub remedy: String,
    /// Command for that action, if there is one that works as it stands.
    pub command: Option<String>,
}

/// A check that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Subject of the check.
    pub what: String,
    /// Reason for skipping it.
    pub reason: String,
}

/// All findings and skipped checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Problems, errors first.
    pub findings: Vec<Finding>,
    /// Checks that were skipped.
    pub skipped: Vec<Skipped>,
}

impl Report {
    /// Returns true if all checks were run and none has a finding.
    pub fn is_healthy(&self) -> bool {
        self.findings.is_empty() && self.skipped.is_empty()
    }

    pub(crate) fn found(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    pub(crate) fn skip(&mut self, what: impl Into<String>, reason: impl fmt::Display) {
        self.skipped.push(Skipped { what: what.into(), reason: reason.to_string() });
    }

    /// Sorts errors first, otherwise keeping the order in which the findings were added.
    pub(crate) fn sorted(mut self) -> Self {
        self.findings.sort_by_key(|finding| finding.severity);
        self
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}): {}", self.severity, self.check, self.problem)?;
        writeln!(f, "  symptom: {}", self.symptom)?;
        writeln!(f, "  remedy:  {}", self.remedy)?;
        match &self.command {
            Some(command) => writeln!(f, "           {command}"),
            None => Ok(()),
        }
    }
}

/// Formats the report for people; empty for a healthy host.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| finding.fmt(f))?;
        let mut skipped = self.skipped.iter();
        skipped
            .try_for_each(|Skipped { what, reason }| writeln!(f, "not checked: {what}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, command: Option<&str>) -> Finding {
        Finding {
            check: "udp-port",
            severity,
            problem: "UDP port 8472 is taken by nc (process 7)".into(),
            symptom: "no packets".into(),
            remedy: "end it".into(),
            command: command.map(str::to_owned),
        }
    }

    #[test]
    fn report_of_healthy_host_is_empty() {
        assert_eq!(Report::default().to_string(), "");
        assert!(Report::default().is_healthy());
    }

    #[test]
    fn report_with_skipped_check_is_not_healthy() {
        let mut report = Report::default();
        report.skip("UDP ports", "this needs root");
        assert!(!report.is_healthy());
        assert_eq!(report.to_string(), "not checked: UDP ports: this needs root\n");
    }

    #[test]
    fn report_lists_errors_first_with_remedies() {
        let mut report = Report::default();
        report.found([finding(Severity::Warning, None), finding(Severity::Error, Some("kill 7"))]);
        assert_eq!(
            report.sorted().to_string(),
            "error (udp-port): UDP port 8472 is taken by nc (process 7)\n\
             \x20 symptom: no packets\n\
             \x20 remedy:  end it\n\
             \x20          kill 7\n\
             warning (udp-port): UDP port 8472 is taken by nc (process 7)\n\
             \x20 symptom: no packets\n\
             \x20 remedy:  end it\n"
        );
    }
}
