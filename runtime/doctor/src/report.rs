//! What is said in the end.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The overlay does not work, in whole or in part.
    Error,
    /// It works, but not for long, or not for everything.
    Warning,
}

/// Something that is wrong with this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, a name for programs: `udp-port`.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the names of what is concerned.
    pub problem: String,
    /// How it shows.
    pub symptom: String,
    /// What to do.
    pub remedy: String,
    /// The command for that, where there is one that fits as it stands.
    pub command: Option<String>,
}

/// Something that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// What.
    pub what: String,
    /// Why not.
    pub reason: String,
}

/// Everything that was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What is wrong, errors first.
    pub findings: Vec<Finding>,
    /// What nobody knows.
    pub skipped: Vec<Skipped>,
}

impl Report {
    /// Whether everything was looked at and nothing found.
    pub fn is_healthy(&self) -> bool {
        self.findings.is_empty() && self.skipped.is_empty()
    }

    pub(crate) fn found(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    pub(crate) fn skip(&mut self, what: impl Into<String>, reason: impl fmt::Display) {
        self.skipped.push(Skipped { what: what.into(), reason: reason.to_string() });
    }

    /// Errors first, otherwise in the order in which they were found.
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
        writeln!(f, "  how it shows: {}", self.symptom)?;
        writeln!(f, "  what to do:   {}", self.remedy)?;
        match &self.command {
            Some(command) => writeln!(f, "                {command}"),
            None => Ok(()),
        }
    }
}

/// For people. Nothing at all for a healthy host.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| finding.fmt(f))?;
        let mut skipped = self.skipped.iter();
        skipped
            .try_for_each(|Skipped { what, reason }| writeln!(f, "not looked at: {what}: {reason}"))
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
    fn nothing_is_said_of_a_healthy_host() {
        assert_eq!(Report::default().to_string(), "");
        assert!(Report::default().is_healthy());
    }

    #[test]
    fn what_was_not_looked_at_is_not_healthy() {
        let mut report = Report::default();
        report.skip("UDP ports", "this needs root");
        assert!(!report.is_healthy());
        assert_eq!(report.to_string(), "not looked at: UDP ports: this needs root\n");
    }

    #[test]
    fn errors_come_first_and_each_says_what_to_do() {
        let mut report = Report::default();
        report.found([finding(Severity::Warning, None), finding(Severity::Error, Some("kill 7"))]);
        assert_eq!(
            report.sorted().to_string(),
            "error (udp-port): UDP port 8472 is taken by nc (process 7)\n\
             \x20 how it shows: no packets\n\
             \x20 what to do:   end it\n\
             \x20               kill 7\n\
             warning (udp-port): UDP port 8472 is taken by nc (process 7)\n\
             \x20 how it shows: no packets\n\
             \x20 what to do:   end it\n"
        );
    }
}
