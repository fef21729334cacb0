//! Result of an examination.

use std::collections::BTreeMap;
use std::fmt;

use heddle_core::text::one_line;
use heddle_plugin::{CallError, Reason};

/// Number of findings kept for each rule.
const MOST: usize = 5;

/// Longest text of a finding, in characters.
const LONGEST: usize = 600;

/// A rule that every plugin must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Has a plan, or files, in an ordinary situation.
    Works,
    /// Gives the same result for the same input.
    Pure,
    /// Results do not depend on earlier calls.
    Order,
    /// A peer that leaves leaves nothing behind, and none takes another's objects.
    Apart,
    /// Plans nothing for leases of other backends.
    Others,
    /// Returns a result for any config, settings and leases.
    Robust,
    /// Results are valid, within the plugin's scope, and covered by its manifest.
    Granted,
    /// Packets are steered to the peer that has their destination.
    Steers,
    /// Packets are decapsulated unchanged.
    Transforms,
}

impl Rule {
    /// Returns a short description of the rule.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Works => "answers in an ordinary situation",
            Self::Pure => "gives the same answer to the same question",
            Self::Order => "does not depend on earlier calls",
            Self::Apart => "plans each peer independently of the others",
            Self::Others => "leaves leases of other backends alone",
            Self::Robust => "answers every input in time and without a trap",
            Self::Granted => "returns only what is valid, in scope and in its manifest",
            Self::Steers => "steers packets to the peer with their destination",
            Self::Transforms => "decapsulates to the original packets",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Works => "works",
            Self::Pure => "pure",
            Self::Order => "order",
            Self::Apart => "apart",
            Self::Others => "others",
            Self::Robust => "robust",
            Self::Granted => "granted",
            Self::Steers => "steers",
            Self::Transforms => "transforms",
        })
    }
}

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The call, and its result.
    pub text: String,
}

/// Findings by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    rules: BTreeMap<Rule, Examined>,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Examined {
    /// Number of checks of the rule.
    times: u64,
    findings: Vec<Finding>,
}

impl Report {
    /// Returns true if no rule was violated.
    pub fn passed(&self) -> bool {
        self.rules.values().all(|examined| examined.findings.is_empty())
    }

    /// Returns every rule that was checked, with the number of checks and the first findings.
    pub fn rules(&self) -> impl Iterator<Item = (Rule, u64, &[Finding])> {
        self.rules.iter().map(|(rule, e)| (*rule, e.times, e.findings.as_slice()))
    }

    /// Returns observations that violate no rule.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Records a check of a rule; a violation unless `kept`.
    pub(crate) fn look(&mut self, rule: Rule, kept: bool, finding: impl FnOnce() -> String) {
        let examined = self.rules.entry(rule).or_default();
        examined.times += 1;
        if !kept && examined.findings.len() < MOST {
            examined.findings.push(Finding { text: one_line(&finding(), LONGEST) });
        }
    }

    /// Records the outcome of a call, by the rules for any result of any call.
    pub(crate) fn sound<T>(
        &mut self,
        question: impl Fn() -> String,
        answer: Result<T, CallError>,
    ) -> Option<Result<T, Reason>> {
        let answer = answer.map_err(|error| error.reason);
        let (mut robust, mut granted) = (true, true);
        match answer.as_ref().err() {
            // The plugin is suspended because of an earlier failure, which has been recorded.
            Some(Reason::Suspended { .. }) => return None,
            Some(
                Reason::Trapped(_)
                | Reason::TimedOut(_)
                | Reason::OutOfMemory { .. }
                | Reason::TooLong(_)
                | Reason::Stopped,
            ) => robust = false,
            Some(Reason::Refused(_)) => granted = false,
            Some(
                Reason::Config { .. }
                | Reason::OtherBackend(_)
                | Reason::Invalid(_)
                | Reason::Emitter(_),
            )
            | None => {}
        }
        let say = || match &answer {
            Ok(_) => String::new(),
            Err(reason) => format!("{}: {reason}", question()),
        };
        self.look(Rule::Robust, robust, say);
        self.look(Rule::Granted, granted, say);
        (robust && granted).then_some(answer)
    }
}
