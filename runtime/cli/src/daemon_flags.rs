//! The daemon's flags, for subcommands that examine a host as the daemon would.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use heddle_flags::{Flags, read_environment_file};

/// Environment file with the packaged unit's flags; that of an instance ends in `@` and the
/// instance's name.
const ENVIRONMENT_FILE: &str = "/etc/default/heddled";

/// The daemon's flags as they were given.
#[derive(Args, Default)]
pub(crate) struct DaemonFlags {
    /// Flags of heddled (see `heddled --help`), or `-i NAME` for an instance. Missing flags are taken from
    /// /etc/default/heddled, or /etc/default/heddled@NAME of an instance, and from the environment.
    #[arg(value_name = "FLAG", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

impl DaemonFlags {
    /// Returns the flags as given.
    pub(crate) fn words(&self) -> &[OsString] {
        &self.words
    }

    /// Returns the flags that the daemon would run with. Like the daemon, exits the process if they
    /// are invalid.
    pub(crate) fn read(self) -> Flags {
        let Words { instance, rest } = Words::of(self.words);
        let variable = |name: &str| match &instance {
            Some(instance) => of_instance(instance, name).or_else(|| std::env::var(name).ok()),
            None => std::env::var(name).ok(),
        };
        let has_file = variable("FLANNELD_ENVIRONMENT_FILE").is_some();
        let arguments = arguments(instance.as_deref(), rest, has_file);
        let flags = Flags::read(arguments, variable, read_environment_file);
        flags.unwrap_or_else(|error| error.exit())
    }

    /// Returns the daemon's systemd unit: `heddled.service`, of an instance `heddled@NAME.service`.
    pub(crate) fn unit(&self) -> String {
        match Words::of(self.words.clone()).instance {
            Some(name) => format!("heddled@{name}.service"),
            None => "heddled.service".to_owned(),
        }
    }
}

/// Returns the control socket that the configuration of the daemon, or of an instance, names. None
/// without one, or if this user cannot read the configuration.
pub(crate) fn control_socket(instance: Option<&str>) -> Option<PathBuf> {
    let variable = |name: &str| match instance {
        Some(instance) => of_instance(instance, name),
        None => std::env::var(name).ok().filter(|_| name == "FLANNELD_CONTROL_SOCKET"),
    };
    let arguments = arguments(instance, Vec::new(), false);
    // The file is also for other flags, which may be wrong or of another version.
    let found = Flags::read(arguments, variable, read_environment_file).ok();
    let configured = found.and_then(|flags| flags.control.control_socket);
    configured.or_else(|| variable("FLANNELD_CONTROL_SOCKET").map(PathBuf::from))
}

/// The words given on the command line.
struct Words {
    instance: Option<String>,
    /// The daemon's flags.
    rest: Vec<OsString>,
}

impl Words {
    fn of(words: Vec<OsString>) -> Self {
        let (mut instance, mut rest) = (None, Vec::new());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("-i" | "--instance" | "-instance") => instance = words.next(),
                Some(text) => match text.strip_prefix("--instance=") {
                    Some(name) => instance = Some(name.into()),
                    None => rest.push(word),
                },
                None => rest.push(word),
            }
        }
        let instance = instance.map(|name| name.to_string_lossy().into_owned());
        Self { instance, rest }
    }
}

/// Returns the value of a variable in the environment of an instance's unit
/// (`dist/heddled@.service`).
fn of_instance(instance: &str, variable: &str) -> Option<String> {
    match variable {
        "FLANNELD_SUBNET_FILE" => Some(format!("/run/flannel/{instance}.env")),
        "FLANNELD_CONTROL_SOCKET" => {
            Some(heddle_control::socket_of(Some(instance)).display().to_string())
        }
        _ => None,
    }
}

/// Builds the daemon's command line, with its environment file unless the operator names another.
fn arguments(instance: Option<&str>, rest: Vec<OsString>, has_file: bool) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("heddled")];
    // The last occurrence counts, so the operator's own flag wins.
    match instance {
        Some(name) => {
            arguments.push(format!("--environment-file=-{ENVIRONMENT_FILE}@{name}").into());
        }
        None if !has_file => {
            arguments.push(format!("--environment-file=-{ENVIRONMENT_FILE}").into());
        }
        None => {}
    }
    arguments.extend(rest);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str, has_file: bool) -> String {
        let words = words.split_whitespace().map(OsString::from).collect();
        let Words { instance, rest } = Words::of(words);
        let arguments = arguments(instance.as_deref(), rest, has_file);
        let arguments: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
        arguments.join(" ")
    }

    #[test]
    fn unit_environment_file_is_the_default() {
        const FILE: &str = "heddled --environment-file=-/etc/default/heddled";
        assert_eq!(read("", false), FILE);
        assert_eq!(read("", true), "heddled");
        assert_eq!(read("-iface eth0 --ip-masq", false), format!("{FILE} -iface eth0 --ip-masq"));
        assert_eq!(
            read("--environment-file=/x", false),
            format!("{FILE} --environment-file=/x"),
            "the last one counts"
        );
        for instance in ["-i blue", "--instance blue", "--instance=blue"] {
            assert_eq!(read(instance, true), format!("{FILE}@blue"));
            assert_eq!(read(&format!("-v 5 {instance}"), false), format!("{FILE}@blue -v 5"));
        }
    }

    #[test]
    fn instance_has_its_own_unit_and_files() {
        let flags = |words: &[&str]| DaemonFlags { words: words.iter().map(Into::into).collect() };
        assert_eq!(flags(&[]).unit(), "heddled.service");
        assert_eq!(flags(&["-v", "5", "-i", "blue"]).unit(), "heddled@blue.service");
        let flags = flags(&["-i", "blue"]).read();
        assert_eq!(flags.files.subnet_file.to_str(), Some("/run/flannel/blue.env"));
        assert_eq!(flags.control_socket().to_str(), Some("/run/heddle/blue.sock"));
    }
}
