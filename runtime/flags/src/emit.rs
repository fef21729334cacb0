//! The files that an operator requests: `--emit`.

use std::fmt;
use std::str::FromStr;

/// One emitter with its settings: `docker-opts:key=DOCKER_NETWORK_OPTIONS,individual=true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Name of the emitter's plugin.
    pub emitter: String,
    /// Names and values, in the order in which they were given. The plugin interprets them.
    pub settings: Vec<(String, String)>,
}

/// The reason why a text is not an emitter with settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmit {
    /// The name before the colon is missing.
    #[error("there is no emitter's name: expected NAME or NAME:setting=value,…")]
    NoName,
    /// The name before the colon contains a comma.
    #[error(
        "`{0}` is no emitter's name: give each emitter a flag of its own, --emit=subnet-env --emit=docker-opts, or \
         separate them by white space in FLANNELD_EMIT"
    )]
    Several(String),
    /// A part after the colon is not a setting.
    #[error("`{0}` is no setting: expected NAME:setting=value,…")]
    NoSetting(String),
    /// A setting is given twice, so its value is ambiguous.
    #[error("the setting `{0}` is given twice: expected each once")]
    Twice(String),
}

impl Emit {
    /// Returns the value of a setting, if it was given.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

impl FromStr for Emit {
    type Err = InvalidEmit;

    fn from_str(text: &str) -> Result<Self, InvalidEmit> {
        let (emitter, settings) = match text.split_once(':') {
            Some((emitter, settings)) => (emitter, settings.split(',').collect()),
            None => (text, Vec::new()),
        };
        if emitter.is_empty() {
            return Err(InvalidEmit::NoName);
        }
        if emitter.contains(',') {
            return Err(InvalidEmit::Several(emitter.to_owned()));
        }
        let mut parsed: Vec<(String, String)> = Vec::new();
        for setting in settings {
            let (name, value) = setting
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| InvalidEmit::NoSetting(setting.to_owned()))?;
            if parsed.iter().any(|(given, _)| given == name) {
                return Err(InvalidEmit::Twice(name.to_owned()));
            }
            parsed.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self { emitter: emitter.to_owned(), settings: parsed })
    }
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.emitter)?;
        for (position, (name, value)) in self.settings.iter().enumerate() {
            let separator = if position == 0 { ':' } else { ',' };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emit_parsed_displays_as_written() {
        for text in ["subnet-env", "docker-opts:key=X", "docker-opts:path=/run/a=b,key="] {
            assert_eq!(text.parse::<Emit>().unwrap().to_string(), text);
        }
        let emit: Emit = "docker-opts:path=/run/a=b,key=".parse().unwrap();
        assert_eq!(emit.emitter, "docker-opts");
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(emit.settings, [setting("path", "/run/a=b"), setting("key", "")]);
    }

    #[test]
    fn invalid_emit_is_explained() {
        for (text, expected) in [
            ("", "no emitter's name"),
            (":path=/x", "no emitter's name"),
            ("subnet-env,docker-opts", "`subnet-env,docker-opts` is no emitter's name: give each"),
            ("subnet-env,docker-opts:key=X", "--emit=subnet-env --emit=docker-opts"),
            ("subnet-env:", "`` is no setting"),
            ("subnet-env:/run/x", "`/run/x` is no setting"),
            ("subnet-env:=x", "`=x` is no setting"),
            ("subnet-env:path=/a,path=/b", "`path` is given twice"),
        ] {
            let error = text.parse::<Emit>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
