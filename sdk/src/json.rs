//! Parses the JSON objects that a plugin gets: the `Backend` object of the network config, and
//! peers' `BackendData`.
//!
//! Keys are matched case-insensitively, like in Go, which flannel's users rely on. `null` is the
//! same as absent, and unknown keys are ignored. Every error names the key, such as `Backend.VNI`,
//! and the rule it violates.
//!
//! [`read`] deserializes into a type of the plugin, with serde;
//! [`NetworkConfig::settings`](crate::NetworkConfig::settings) and
//! [`LeaseFamily::data`](crate::LeaseFamily::data) call it for the usual cases. An [`Object`] is
//! read key by key, with a range for each number.

use std::ops::RangeInclusive;

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use crate::ConfigError;

/// Deserializes an object into a type of the plugin. Error messages call the object `name`.
///
/// ```
/// use heddle_sdk::json;
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "PascalCase", default)]
/// struct Settings {
///     port: u16,
///     relays: Vec<std::net::IpAddr>,
/// }
///
/// impl Default for Settings {
///     fn default() -> Self {
///         Self { port: 8285, relays: vec![] }
///     }
/// }
///
/// let settings: Settings = json::read("Backend", r#"{"Type":"x","PORT":4000,"Relays":null}"#)?;
/// assert_eq!((settings.port, settings.relays.len()), (4000, 0));
/// let error = json::read::<Settings>("Backend", r#"{"Relays":["fd00::1","here"]}"#).err().unwrap();
/// assert_eq!(error.key, "Backend.Relays[1]");
/// # Ok::<(), heddle_sdk::ConfigError>(())
/// ```
///
/// # Errors
///
/// If the text is not a JSON object, or a member is not what the type expects. The error has the
/// member's path.
pub fn read<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, ConfigError> {
    let Object { members, .. } = Object::parse(name, text)?;
    serde_path_to_error::deserialize(Relaxed(members)).map_err(|error| {
        let path = error.path().to_string();
        let key = if path == "." { name.to_owned() } else { format!("{name}.{path}") };
        ConfigError { key, message: format!("cannot be used: {}", error.into_inner()) }
    })
}

/// An object whose keys are matched case-insensitively, and in which `null` is the same as absent.
struct Relaxed(Map<String, Value>);

impl<'de> Deserializer<'de> for Relaxed {
    type Error = serde_json::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let mut members = Map::new();
        for (key, value) in self.0.into_iter().filter(|(_, value)| !value.is_null()) {
            let field = fields.iter().find(|field| field.eq_ignore_ascii_case(&key));
            let key = field.map_or(key, |field| (*field).to_owned());
            if members.contains_key(&key) {
                let message = format!("`{key}` is given more than once (case does not matter)");
                return Err(Self::Error::custom(message));
            }
            members.insert(key, value);
        }
        Value::Object(members).deserialize_struct(name, fields, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        Value::Object(self.0).deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A parsed JSON object, with its name for error messages.
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
    /// The only keys that may be read. None allows all.
    keys: Option<&'a [&'a str]>,
}

/// Errors of several members, so that one answer reports all of them.
///
/// ```
/// use heddle_sdk::json::{Errors, Object};
///
/// let backend = Object::parse("Backend", r#"{"VNI": "a", "Port": -1, "GBP": true}"#)?;
/// let mut errors = Errors::default();
/// let vni = errors.note(backend.integer("VNI", 0..=0xff_ffff)).flatten();
/// let port = errors.note(backend.port("Port")).flatten();
/// let gbp = errors.note(backend.flag("GBP")).flatten();
/// assert_eq!((vni, port, gbp), (None, None, Some(true)));
/// assert_eq!(
///     errors.result().unwrap_err().to_string(),
///     "Backend.VNI is \"a\": expected a whole number from 0 to 16777215; \
///      Backend.Port is -1: expected a whole number from 0 to 65535"
/// );
/// # Ok::<(), heddle_sdk::ConfigError>(())
/// ```
#[derive(Debug, Default)]
pub struct Errors(Vec<ConfigError>);

impl Errors {
    /// Adds an error.
    pub fn add(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// Returns the value, or adds the error and returns None.
    pub fn note<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// Returns all errors as one.
    ///
    /// # Errors
    ///
    /// If there is any. It has the key of the first one, and the others are part of its message.
    pub fn result(self) -> Result<(), ConfigError> {
        let mut errors = self.0.into_iter();
        let Some(mut first) = errors.next() else { return Ok(()) };
        for error in errors {
            first.message += &format!("; {error}");
        }
        Err(first)
    }
}

impl<'a> Object<'a> {
    /// Parses an object that error messages call `name`.
    ///
    /// # Errors
    ///
    /// If the text is not a JSON object.
    pub fn parse(name: &'a str, text: &str) -> Result<Self, ConfigError> {
        match serde_json::from_str(text) {
            Ok(members) => Ok(Self { name, members, keys: None }),
            Err(error) => Err(ConfigError {
                key: name.to_owned(),
                message: format!("is not a JSON object: {error}"),
            }),
        }
    }

    /// Restricts the object to a backend's declared keys
    /// ([`Backend::KEYS`](crate::Backend::KEYS)), so that no key is read without being declared.
    #[must_use]
    pub fn with_keys(self, keys: Option<&'a [&'a str]>) -> Self {
        Self { keys, ..self }
    }

    /// Returns a member that is `true` or `false`.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// Returns a member that is a whole number within a range.
    ///
    /// # Errors
    ///
    /// If it is something else, or out of range.
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

    /// Returns a member that is a UDP port. As in flannel, 0 selects the default, like an absent
    /// one.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn port(&self, key: &str) -> Result<Option<u16>, ConfigError> {
        let port = self.integer(key, 0..=u32::from(u16::MAX))?;
        Ok(port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0))
    }

    /// Returns a member that is a string.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.read(key, "a text", Value::as_str)
    }

    /// Creates an error about a member: `message` follows its name.
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
        let declared = self.keys.is_none_or(|keys| keys.contains(&key));
        assert!(declared, "{key} is missing in the backend's KEYS");
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

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Settings {
        remote: std::net::IpAddr,
        port: Option<u16>,
    }

    fn settings(text: &str) -> Result<Settings, String> {
        read("Backend", text).map_err(|error| error.to_string())
    }

    #[test]
    fn custom_type_is_read_and_errors_name_the_key() {
        let remote = "192.0.2.1".parse().unwrap();
        assert_eq!(
            settings(r#"{"Type":"x","REMOTE":"192.0.2.1","port":7}"#),
            Ok(Settings { remote, port: Some(7) })
        );
        assert_eq!(
            settings(r#"{"remote":"192.0.2.1","Port":null}"#),
            Ok(Settings { remote, port: None })
        );
        for (text, expected) in [
            (r#"{"Port":1}"#, "Backend cannot be used: missing field `Remote`"),
            (r#"{"remote":null}"#, "Backend cannot be used: missing field `Remote`"),
            (r#"{"remote":"here"}"#, "Backend.Remote cannot be used: invalid IP address syntax"),
            (
                r#"{"remote":"192.0.2.1","PORT":70000}"#,
                "Backend.Port cannot be used: invalid value: integer `70000`, expected u16",
            ),
            (
                r#"{"remote":"192.0.2.1","port":1,"PORT":2}"#,
                "Backend cannot be used: `Port` is given more than once (case does not matter)",
            ),
        ] {
            assert_eq!(settings(text), Err(expected.to_owned()));
        }
        assert!(settings("[]").unwrap_err().starts_with("Backend is not a JSON object: "));
    }

    #[test]
    fn keys_are_matched_case_insensitively() {
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
    fn port_0_is_the_same_as_absent() {
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
