//! Errors in the network config.

use std::fmt::Display;

use super::CONFIG_LIMIT;

/// An error in the network config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is longer than [`CONFIG_LIMIT`].
    #[error("too long: {0} bytes, and the limit is {CONFIG_LIMIT}")]
    TooLong(usize),
    /// The text is not a JSON object.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// A required key is missing.
    #[error("`{key}` is missing: {rule}")]
    Missing {
        /// The missing key.
        key: &'static str,
        /// The rule that requires it.
        rule: &'static str,
    },
    /// A key occurs twice.
    #[error("`{0}` is given more than once (keys are matched without regard to case)")]
    Repeated(String),
    /// A key has a value of the wrong type or form.
    #[error("`{key}` is {found}: expected {expected}")]
    Type {
        /// The key.
        key: &'static str,
        /// The value found, as JSON.
        found: String,
        /// The type or form that is accepted.
        expected: &'static str,
    },
    /// A key has a value that breaks a rule.
    #[error("`{key}` is {value}: {rule}")]
    Rule {
        /// The key.
        key: &'static str,
        /// The value found, or the default that was used in its place.
        value: String,
        /// The rule, with the values that it allows here.
        rule: String,
    },
}

/// Errors in the network config, in the order of its keys. At least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

pub(super) fn broken(
    key: &'static str,
    value: impl Display,
    rule: impl Into<String>,
) -> ConfigError {
    ConfigError::Rule { key, value: value.to_string(), rule: rule.into() }
}

/// Errors in the order in which they were found.
#[derive(Default)]
pub(super) struct Errors(pub(super) Vec<ConfigError>);

impl Errors {
    pub(super) fn add(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// Returns the value, or records the error and returns None.
    pub(super) fn note<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}
