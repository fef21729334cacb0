//! The fate of each key.

use std::time::Duration;

use serde::Serialize;

/// The fate of one key of the v2 API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The v3 API did not have it, and has it now.
    Copied,
    /// The lease was the same, and has as much time left as in the v2 API now.
    Extended,
    /// The v3 API had something else, which the operator asked to replace.
    Overwritten,
    /// The v3 API had it already.
    Present,
    /// The v3 API has something else, which stays.
    Conflict,
    /// It is nothing that Heddle could use.
    LeftOut,
}

impl Outcome {
    /// All outcomes, in the order of a summary.
    pub const ALL: [Self; 6] = [
        Self::Copied,
        Self::Extended,
        Self::Overwritten,
        Self::Present,
        Self::Conflict,
        Self::LeftOut,
    ];

    /// Returns the outcome in words. With `planned`, it has not happened.
    pub fn words(self, planned: bool) -> &'static str {
        match (self, planned) {
            (Self::Copied, false) => "copied",
            (Self::Copied, true) => "would copy",
            (Self::Extended, false) => "extended",
            (Self::Extended, true) => "would extend",
            (Self::Overwritten, false) => "overwritten",
            (Self::Overwritten, true) => "would overwrite",
            (Self::Present, _) => "there already",
            (Self::Conflict, _) => "conflict",
            (Self::LeftOut, _) => "left out",
        }
    }
}

/// One key of the v2 API, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Name below the prefix, such as `config` or `subnets/10.244.8.0-24`.
    pub key: String,
    /// The fate of the key.
    pub outcome: Outcome,
    /// A description of the key, or the reason for its fate.
    pub detail: String,
    /// Seconds until it expires in the v3 API. None if it never does, or is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// The fates of all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// True if nothing was written.
    pub dry_run: bool,
    /// A line for each key.
    pub lines: Vec<Line>,
}

impl Report {
    /// Returns the number of keys with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.lines.iter().filter(|line| line.outcome == outcome).count()
    }

    /// Returns true if no key is a conflict or was left out.
    pub fn is_complete(&self) -> bool {
        self.count(Outcome::Conflict) == 0 && self.count(Outcome::LeftOut) == 0
    }

    /// Returns the time until the first lease expires in the v3 API, unless its node renews it there.
    pub fn first_expiry(&self) -> Option<Duration> {
        self.lines.iter().filter_map(|line| line.expires_in).min().map(Duration::from_secs)
    }

    /// Returns the summary in one line, such as `copied: 3; there already: 1`.
    pub fn summary(&self) -> String {
        let counted = Outcome::ALL.into_iter().filter_map(|outcome| {
            let count = self.count(outcome);
            (count > 0).then(|| format!("{}: {count}", outcome.words(self.dry_run)))
        });
        counted.collect::<Vec<_>>().join("; ")
    }
}
