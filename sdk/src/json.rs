//! Reads the JSON objects that reach a plugin: the `Backend` object of the network config, and peers' `BackendData`.
//!
//! Keys are matched without regard to case, as Go does and as flannel's users rely on. `null` is the same as absent,
//! and unknown keys are ignored. Every error names its key, `Backend.VNI`, and the rule it breaks.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::ConfigError;

/// A JSON object that was read, with the name it goes by in messages.
///
/// ```
/// use heddle_sdk::json::Object;
///
/// let backend = Object::parse("Backend", r#"{"Type": "vxlan", "vni": 7}"#)?;
/// assert_eq!(backend.integer("VNI", 0..=0xff_ffff)?, Some(7));
/// assert_eq!(backend.flag("DirectRouting")?, None);
/// let error = backend.integer("VNI", 0..=6).unwrap_err();
/// assert_eq!(error.to_string(), "Backend.VNI is 7: expected a whole number from 0 to 6");
/// # Ok::<(), heddle_sdk::ConfigError>(())
/// ```
pub struct Object<'a> {
    name: &'a str,
    members: Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Reads an object that messages call `name`.
    ///
    /// # Errors
    ///
    /// The text is not a JSON object.
    pub fn parse(name: &'a str, text: &str) -> Result<Self, ConfigError> {
        match serde_json::from_str(text) {
            Ok(members) => Ok(Self { name, members }),
            Err(error) => Err(ConfigError {
                key: name.to_owned(),
                message: format!("is not a JSON object: {error}"),
            }),
        }
    }

    /// A member that is `true` or `false`.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A member that is a whole number within a range.
    ///
    /// # Errors
    ///
    /// It is something else, or outside the range.
    pub fn integer(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.find(key)? else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (least, most) = range.into_inner();
                let expected = format!("a whole number from {least} to {most}");
                Err(self.unexpected(key, value, &expected))
            }
        }
    }

    /// A member that is a UDP port. As in flannel, 0 leaves the choice open, as does an absent one.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn port(&self, key: &str) -> Result<Option<u16>, ConfigError> {
        let port = self.integer(key, 0..=u32::from(u16::MAX))?;
        Ok(port.filter(|port| *port != 0).map(|port| port as u16))
    }

    /// A member that is a text.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.read(key, "a text", Value::as_str)
    }

    /// A complaint about a member: `message` is put after its name.
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError { key: format!("{}.{key}", self.name), message: message.into() }
    }

    fn read<'s, T>(
        &'s self,
        key: &str,
        expected: &str,
        read: impl Fn(&'s Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.find(key)? {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.unexpected(key, value, expected)),
            },
        }
    }

    fn find(&self, key: &str) -> Result<Option<&Value>, ConfigError> {
        let mut found =
            self.members.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key)).fuse();
        let first = found.next().map(|(_, value)| value);
        if found.next().is_some() {
            return Err(self.error(key, "is given more than once (case does not matter)"));
        }
        Ok(first.filter(|value| !value.is_null()))
    }

    fn unexpected(&self, key: &str, value: &Value, expected: &str) -> ConfigError {
        let mut found = value.to_string();
        if found.chars().count() > 60 {
            found = found.chars().take(60).chain(['…']).collect();
        }
        self.error(key, format!("is {found}: expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn keys_are_matched_without_regard_to_case() {
        let object = Object::parse("Backend", r#"{"gbp":true,"PORT":1,"Mac":"x"}"#).unwrap();
        assert_eq!(object.flag("GBP"), Ok(Some(true)));
        assert_eq!(object.integer("Port", 0..=9), Ok(Some(1)));
        assert_eq!(object.text("MAC"), Ok(Some("x")));
    }

    #[test]
    fn absent_and_null_are_the_same() {
        let object = Object::parse("Backend", r#"{"VNI":null}"#).unwrap();
        assert_eq!(object.integer("VNI", 0..=9), Ok(None));
        assert_eq!(object.integer("Port", 0..=9), Ok(None));
    }

    #[test]
    fn port_0_is_the_same_as_none() {
        let object = Object::parse("Backend", r#"{"a":0,"b":65535,"c":65536}"#).unwrap();
        let ports = ["a", "b", "none"].map(|key| object.port(key).unwrap());
        assert_eq!(ports, [None, Some(65535), None]);
        assert_eq!(
            message(object.port("c")),
            "Backend.c is 65536: expected a whole number from 0 to 65535"
        );
    }

    #[test]
    fn errors_name_the_key_and_the_rule() {
        let text = r#"{"VNI":-1,"Port":"8472","GBP":1,"a":1,"A":2}"#;
        let object = Object::parse("Backend", text).unwrap();
        assert_eq!(
            message(object.integer("VNI", 0..=9)),
            "Backend.VNI is -1: expected a whole number from 0 to 9"
        );
        assert_eq!(
            message(object.integer("Port", 0..=9)),
            "Backend.Port is \"8472\": expected a whole number from 0 to 9"
        );
        assert_eq!(message(object.flag("GBP")), "Backend.GBP is 1: expected true or false");
        assert_eq!(
            message(object.flag("A")),
            "Backend.A is given more than once (case does not matter)"
        );
        assert!(
            message(Object::parse("BackendData", "[1]").map(|_| ()))
                .starts_with("BackendData is not a JSON object")
        );
    }
}
