//! Values of flags that are not on the command line: the environment file, and the environment.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::environment_file::{Assignment, assignments};
use crate::like_go::Given;

/// Name of the flag for a file with variables of other flags.
const ENVIRONMENT_FILE: &str = "environment-file";

/// Name of the flag whose variable may have several values, separated by white space.
const EMIT: &str = "emit";

/// Prefix of the flags' environment variables.
const PREFIX: &str = "FLANNELD_";

/// Name of a flag, and the place that its value is from.
pub(crate) type Origin = (String, String);

/// Adds the flags that the command line lacks and the environment file or the environment has.
/// Returns the origins of their values.
pub(crate) fn complete(
    command: &mut clap::Command,
    given: &mut Vec<Given>,
    variable: impl Fn(&str) -> Option<String>,
    file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Vec<Origin>, clap::Error> {
    let stated = given.iter().rfind(|flag| flag.name == ENVIRONMENT_FILE);
    let stated = stated.map(|flag| flag.value.clone().unwrap_or_default());
    let path = stated.or_else(|| variable(&variable_name(ENVIRONMENT_FILE)).map(OsString::from));
    let from_file = match path.filter(|path| !path.is_empty()) {
        Some(path) => variables(command, &path, file)?,
        None => Vec::new(),
    };
    let mut origins = Vec::new();
    for name in command.get_arguments().filter_map(clap::Arg::get_long) {
        if given.iter().any(|flag| flag.name == name) {
            continue;
        }
        let wanted = variable_name(name);
        let in_file = from_file.iter().rfind(|found| found.name == wanted);
        let (value, origin) = match in_file {
            Some(found) => (found.value.clone(), format!("{} in {}", wanted, found.path)),
            None => match variable(&wanted) {
                Some(value) => (value, format!("the environment variable {wanted}")),
                None => continue,
            },
        };
        let mut add = |value: &str| {
            given.push(Given { name: name.to_owned(), value: Some(value.into()) });
        };
        match name {
            EMIT => value.split_whitespace().for_each(add),
            _ if value.is_empty() => continue,
            _ => add(&value),
        }
        origins.push((name.to_owned(), origin));
    }
    Ok(origins)
}

/// A variable of the environment file.
struct Variable {
    name: String,
    value: String,
    /// Path of the environment file.
    path: String,
}

/// Reads the environment file. A path with a leading dash need not exist, as in systemd's units.
fn variables(
    command: &mut clap::Command,
    path: &OsStr,
    file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Vec<Variable>, clap::Error> {
    let optional = path.as_bytes().strip_prefix(b"-");
    let path = Path::new(optional.map_or(path, OsStr::from_bytes));
    let text = match file(path) {
        Ok(text) => text,
        Err(error) if optional.is_some() && error.kind() == io::ErrorKind::NotFound => {
            String::new()
        }
        Err(error) => {
            let message = format!("--environment-file: cannot read {}: {error}", path.display());
            return Err(command.error(ErrorKind::Io, message));
        }
    };
    let known: Vec<_> =
        command.get_arguments().filter_map(|flag| flag.get_long()).map(variable_name).collect();
    let mut found = Vec::new();
    for Assignment { name, value, line } in assignments(&text) {
        // Also applies to a name after another word, such as a shell's `export`, which systemd
        // would ignore.
        let meant = name.split_whitespace().any(|word| word.starts_with(PREFIX));
        if meant && !known.contains(&name) {
            let message = format!(
                "{}, line {line}: {name} is no flag's variable: expected {PREFIX} and a flag's name in upper case, such as \
                 FLANNELD_ETCD_PREFIX",
                path.display()
            );
            return Err(command.error(ErrorKind::UnknownArgument, message));
        }
        found.push(Variable { name, value, path: path.display().to_string() });
    }
    Ok(found)
}

fn variable_name(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Adds the origins of the values to a text that names flags, except for values of the command line.
pub(crate) fn with_origins(mut text: String, origins: &[Origin]) -> String {
    for (name, origin) in origins {
        let flag = format!("--{name}");
        let mut found = text.match_indices(&flag).map(|(start, _)| start + flag.len());
        // A flag's name may begin with another's.
        let ends =
            |end: &usize| !text[*end..].starts_with(|c: char| c.is_alphanumeric() || c == '-');
        if let Some(end) = found.find(ends) {
            text.insert_str(end, &format!(" (from {origin})"));
        }
    }
    text
}

/// Adds the origin of the value to an error about a flag, unless it is from the command line.
pub(crate) fn blame(mut error: clap::Error, origins: &[Origin]) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let blamed = origins.iter().find(|(name, _)| {
        let rest = argument.strip_prefix("--").and_then(|text| text.strip_prefix(name.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '=', '[']))
    });
    if let Some((_, origin)) = blamed {
        let source = format!("{argument} (from {origin})");
        error.insert(ContextKind::InvalidArg, ContextValue::String(source));
    }
    error
}
