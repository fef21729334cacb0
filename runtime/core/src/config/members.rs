//! The members of the config's JSON objects.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::CONFIG_LIMIT;
use super::error::ConfigError;
use crate::text::{LONGEST, one_line};

/// The config's members. Lookups ignore case, as Go's `encoding/json` does.
pub(super) struct Members(pub(super) Map<String, Value>);

pub(super) fn members(text: &[u8]) -> Result<Members, ConfigError> {
    if text.len() > CONFIG_LIMIT {
        return Err(ConfigError::TooLong(text.len()));
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(members)) => Ok(Members(members)),
        Ok(other) => Err(ConfigError::NotAnObject(format!("found {}", kind(&other)))),
        Err(error) => Err(ConfigError::NotAnObject(error.to_string())),
    }
}

impl Members {
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.find(key)? else {
            return Ok(None);
        };
        serde_json::from_value(value.clone()).map(Some).map_err(|_| ConfigError::Type {
            key,
            found: one_line(&value.to_string(), LONGEST),
            expected,
        })
    }

    fn find(&self, key: &str) -> Result<Option<&Value>, ConfigError> {
        let mut found = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        let first = found.next();
        if let Some((name, _)) = found.next() {
            return Err(ConfigError::Repeated(one_line(name, LONGEST)));
        }
        Ok(first.map(|(_, value)| value).filter(|value| !value.is_null()))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
