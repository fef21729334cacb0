//! The refusal of a plugin's answer.

use std::fmt;

use crate::text::plain;

/// An object in a plugin's answer, and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {rule}")]
pub struct Refusal {
    /// The object, formatted as `ip` and `bridge` show it.
    pub object: String,
    /// The rule that it breaks, with what would be accepted.
    pub rule: String,
}

impl Refusal {
    /// Creates a refusal. Both texts may quote the plugin, so each becomes one line of bounded
    /// length.
    pub fn new(object: impl fmt::Display, rule: impl Into<String>) -> Self {
        Self { object: plain(&object.to_string()), rule: plain(&rule.into()) }
    }
}
