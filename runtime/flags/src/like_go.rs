//! Parses command lines as Go's package `flag` does, and normalizes them into arguments that clap
//! cannot misread.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::ArgAction;

use crate::go_bool::truth;

/// One flag of the command line.
pub(crate) struct Given {
    pub(crate) name: String,
    pub(crate) value: Option<OsString>,
}

impl Given {
    /// Parses `-name`, `--name`, `-name=value` or `--name=value`.
    fn parse(argument: &OsStr) -> Option<Self> {
        let bytes = argument.as_bytes();
        let flag = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
        let mut parts = flag.splitn(2, |byte| *byte == b'=');
        let name = parts.next().filter(|_| !flag.is_empty())?;
        let name = match (argument.to_str(), name) {
            (Some("-h"), _) => "help".to_owned(),
            (Some("-V"), _) => "version".to_owned(),
            (_, name) => String::from_utf8_lossy(name).into_owned(),
        };
        Some(Self { name, value: parts.next().map(|value| OsStr::from_bytes(value).to_owned()) })
    }

    /// Returns the flag in clap's unambiguous form, `--name=value`.
    pub(crate) fn into_argument(self) -> OsString {
        let mut argument = OsString::from(format!("--{}", self.name));
        if let Some(value) = self.value {
            argument.push("=");
            argument.push(value);
        }
        argument
    }
}

/// Parses flags as Go's package `flag` does: up to the first argument that is not a flag. The
/// argument after a flag that needs a value is its value, even if it looks like a flag. Returns the
/// flags and the remaining arguments.
pub(crate) fn read_like_go(
    command: &clap::Command,
    arguments: impl Iterator<Item = OsString>,
) -> (Vec<Given>, Vec<OsString>) {
    let mut arguments = arguments.peekable();
    let mut given = Vec::new();
    while let Some(mut flag) = arguments.peek().and_then(|argument| Given::parse(argument)) {
        arguments.next();
        if flag.value.is_none() && valued(command, &flag.name).is_some() {
            flag.value = arguments.next();
        }
        given.push(flag);
    }
    (given, arguments.collect())
}

/// Drops a last argument that is the value of the boolean flag before it, as in `--ip-masq true`. Go
/// has the flag without it, and so gets the same.
///
/// # Errors
///
/// The reason why the first of the remaining arguments is no flag's. Go ignores it, and all flags
/// after it.
pub(crate) fn without_truth(
    command: &clap::Command,
    given: &[Given],
    rest: Vec<OsString>,
) -> Result<Vec<OsString>, String> {
    let Some(first) = rest.first().filter(|first| *first != "--") else { return Ok(rest) };
    let first = first.to_string_lossy();
    let boolean =
        given.last().filter(|flag| flag.value.is_none() && is_boolean(command, &flag.name));
    let (Some(flag), Ok(truth)) = (boolean, truth(&first)) else { return Ok(rest) };
    if truth && rest.len() == 1 {
        return Ok(Vec::new());
    }
    Err(format!(
        "`{first}` belongs to no flag: write --{name}={first}; flannel takes --{name} for true here, and ignores all \
         that follows",
        name = flag.name
    ))
}

/// Returns true for a flag whose value, if there is one, follows an equals sign.
fn is_boolean(command: &clap::Command, name: &str) -> bool {
    let mut flags = command.get_arguments();
    flags.any(|flag| flag.get_long() == Some(name) && flag.is_require_equals_set())
}

/// Drops flags with an empty value, which stands for the default. An empty value also resets
/// earlier values, unless the flag is a list.
pub(crate) fn without_empty(command: &clap::Command, given: Vec<Given>) -> Vec<Given> {
    let mut kept = Vec::with_capacity(given.len());
    for flag in given {
        let empty = flag.value.as_ref().is_some_and(|value| value.is_empty());
        match valued(command, &flag.name).filter(|_| empty).map(clap::Arg::get_action) {
            None => kept.push(flag),
            Some(ArgAction::Append) => {}
            Some(_) => kept.retain(|earlier: &Given| earlier.name != flag.name),
        }
    }
    kept
}

/// Returns the flag of that name, if it requires a value. Boolean flags do not.
fn valued<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    let mut flags = command.get_arguments();
    flags.find(|flag| flag.get_long() == Some(name) && !flag.is_require_equals_set())
}
