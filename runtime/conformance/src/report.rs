//! What an examination found.

use std::collections::BTreeMap;
use std::fmt;

use heddle_core::text::one_line;
use heddle_plugin::{CallError, Reason};

/// How many findings of one rule are kept.
const MOST: usize = 5;

/// The longest text of a finding, in characters.
const LONGEST: usize = 600;

/// Something that every plugin has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// It has a plan, or files, in an ordinary situation.
    Works,
    /// The same question gets the same answer.
    Pure,
    /// Answers do not depend on what was asked before.
    Order,
    /// Peers that come and go leave nothing behind, and none takes what is another's.
    Apart,
    /// Leases for other backends are left to them.
    Others,
    /// Whatever stands in the config, the settings and the leases, it answers.
    Robust,
    /// What it asks the host for is possible, its business, and in its manifest.
    Granted,
    /// Packets go to the peer that has their destination.
    Steers,
    /// Packets come out as they went in.
    Transforms,
}

impl Rule {
    /// What it demands, in a few words.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Works => "answers in an ordinary situation",
            Self::Pure => "gives the same answer to the same question",
            Self::Order => "does not remember what it was asked before",
            Self::Apart => "keeps peers apart: who goes leaves nothing, who comes takes nothing",
            Self::Others => "leaves leases of other backends alone",
            Self::Robust => "answers whatever it is told, without a trap and in time",
            Self::Granted => "asks for what is possible, its business, and in its manifest",
            Self::Steers => "sends packets to the peer that has their destination",
            Self::Transforms => "gives packets back as they were",
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

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it was asked, and what came of it.
    pub text: String,
}

/// What was found, by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    rules: BTreeMap<Rule, Examined>,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Examined {
    /// How often it was looked at.
    times: u64,
    findings: Vec<Finding>,
}

impl Report {
    /// Whether no rule was broken.
    pub fn passed(&self) -> bool {
        self.rules.values().all(|examined| examined.findings.is_empty())
    }

    /// Every rule that was looked at, how often, and the first findings.
    pub fn rules(&self) -> impl Iterator<Item = (Rule, u64, &[Finding])> {
        self.rules.iter().map(|(rule, e)| (*rule, e.times, e.findings.as_slice()))
    }

    /// What breaks no rule and is worth knowing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Notes that a rule was looked at, and broken unless `kept`.
    pub(crate) fn look(&mut self, rule: Rule, kept: bool, finding: impl FnOnce() -> String) {
        let examined = self.rules.entry(rule).or_default();
        examined.times += 1;
        if !kept && examined.findings.len() < MOST {
            examined.findings.push(Finding { text: one_line(&finding(), LONGEST) });
        }
    }

    /// Takes note of what befell a call: what every answer has to be, whatever was asked.
    pub(crate) fn sound<T>(
        &mut self,
        question: impl Fn() -> String,
        answer: Result<T, CallError>,
    ) -> Option<Result<T, Reason>> {
        let answer = answer.map_err(|error| error.reason);
        let (mut robust, mut granted) = (true, true);
        match answer.as_ref().err() {
            // It has failed at something else before, which was found then.
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
