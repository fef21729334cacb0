//! The daemon's flags, for subcommands that look at a host as the daemon would.

use std::ffi::OsString;

use clap::Args;
use heddle_flags::Flags;

/// The file that the packaged unit has its flags in; that of an instance has `@` and its name at the end.
const ENVIRONMENT_FILE: &str = "/etc/default/heddled";

/// The daemon's flags as they were given.
#[derive(Args)]
pub(crate) struct DaemonFlags {
    /// `-i NAME` for an instance, and any flag of heddled's (see `heddled --help`). Those that are not given are taken
    /// from /etc/default/heddled, of an instance /etc/default/heddled@NAME, or from the environment.
    #[arg(value_name = "FLAG", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

impl DaemonFlags {
    /// The flags that the daemon would run with. Ends the process if they are wrong, as the daemon would.
    pub(crate) fn read(self) -> Flags {
        let arguments =
            arguments(self.words, std::env::var_os("FLANNELD_ENVIRONMENT_FILE").is_some());
        Flags::of_process(arguments).unwrap_or_else(|error| error.exit())
    }
}

/// The daemon's command line: without the instance, and with its file unless another is named.
fn arguments(words: Vec<OsString>, has_file: bool) -> Vec<OsString> {
    let mut rest = Vec::new();
    let mut instance = None;
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
    let mut arguments = vec![OsString::from("heddled")];
    // The last one counts, so that one of the operator's own wins.
    if instance.is_some() || !has_file {
        let mut file = OsString::from(format!("--environment-file=-{ENVIRONMENT_FILE}"));
        if let Some(name) = instance {
            file.push("@");
            file.push(name);
        }
        arguments.push(file);
    }
    arguments.extend(rest);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str, has_file: bool) -> String {
        let words = words.split_whitespace().map(OsString::from).collect();
        let arguments = arguments(words, has_file);
        let arguments: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
        arguments.join(" ")
    }

    #[test]
    fn the_unit_s_file_is_read_unless_another_is_named() {
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
}
