//! Boolean flags as in Go: bare, or with a value after an equals sign.

use clap::{Arg, ArgAction};

/// Arguments that are boolean flags as in Go's package `flag`.
pub(crate) trait GoBool {
    /// Returns the argument as a boolean flag: `--flag` means true, and a value follows an equals
    /// sign. `default` is its value if it is not given.
    fn go_bool(self, default: Option<&'static str>) -> Self;
}

impl GoBool for Arg {
    fn go_bool(self, default: Option<&'static str>) -> Self {
        self.value_name("BOOL")
            .value_parser(truth)
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value(default)
            .default_missing_value("true")
    }
}

/// Parses a boolean as Go's `strconv.ParseBool` does.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}
