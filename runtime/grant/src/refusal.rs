//! What is wrong with a plugin's answer.

use std::fmt;

use crate::text::plain;

/// An object in a plugin's answer, and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {rule}")]
pub struct Refusal {
    /// The object, as `ip` and `bridge` would show it.
    pub object: String,
    /// What was wrong and what would be right.
    pub rule: String,
}

impl Refusal {
    /// Both may quote the plugin: each becomes one line of bounded length.
    pub fn new(object: impl fmt::Display, rule: impl Into<String>) -> Self {
        Self { object: plain(&object.to_string()), rule: plain(&rule.into()) }
    }
}
