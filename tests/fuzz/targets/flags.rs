//! The daemon's flags: a command line and an environment file as written by an operator, and one
//! flag's value in every place that accepts it, which must all mean the same.

#![no_main]
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use arbitrary::Arbitrary;
use heddle_core::node::NodeId;
use heddle_flags::{Emit, FileFlags, Flags};
use libfuzzer_sys::fuzz_target;

/// Flags that have one value. `emit` is excluded: in a variable it is a list separated by white
/// space.
const FLAGS: [&str; 12] = [
    "etcd-endpoints",
    "etcd-prefix",
    "store",
    "node-id",
    "iface",
    "iface-regex",
    "public-ip",
    "subnet-lease-renew-margin",
    "iptables-resync",
    "subnet-file",
    "healthz-port",
    "v",
];

#[derive(Arbitrary, Debug)]
enum Input {
    /// NUL-separated arguments, and the environment file.
    Written { arguments: Vec<u8>, file: String, environment: String },
    /// One flag with a value.
    Flag { which: u8, value: String },
}

/// Returns a reader that yields the same text for every file.
fn file(text: &str) -> impl Fn(&Path) -> io::Result<String> {
    move |_| Ok(text.to_owned())
}

fn arguments(words: &[&str]) -> Vec<OsString> {
    ["heddled"].iter().chain(words).map(OsString::from).collect()
}

/// Quotes a value for an environment file.
fn quoted(value: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' | '`' | '$' => format!("\\{c}"),
        _ => c.to_string(),
    };
    format!("\"{}\"", value.chars().map(escape).collect::<String>())
}

/// Returns the effective flags if the value is accepted. Errors are dropped, because they differ by
/// source.
fn outcome<E>(read: Result<Flags, E>) -> Option<String> {
    read.ok().map(|flags| {
        // `environment_file` names the source, so it is set in one of the cases only.
        let files = FileFlags { environment_file: None, ..flags.files };
        format!("{:?}", Flags { files, ..flags })
    })
}

/// Asserts that a flag's value means the same in every place that accepts it.
fn everywhere(flag: &str, value: &str) {
    let variable = format!("FLANNELD_{}", flag.to_uppercase().replace('-', "_"));
    let none = |_: &str| None;
    let line = outcome(Flags::read(arguments(&[&format!("--{flag}={value}")]), none, file("")));
    let apart = outcome(Flags::read(arguments(&[&format!("-{flag}"), value]), none, file("")));
    let set = |name: &str| (name == variable).then(|| value.to_owned());
    let environment = outcome(Flags::read(arguments(&[]), set, file("")));
    let text = format!("{variable}={}\n", quoted(value));
    let from_file = outcome(Flags::read(arguments(&["--environment-file=/e"]), none, file(&text)));
    assert_eq!(line, apart, "{flag} {value:?}");
    assert_eq!(line, environment, "{flag} {value:?}");
    assert_eq!(line, from_file, "{flag} {value:?}");
    if value.is_empty() {
        assert_eq!(line, outcome(Flags::read(arguments(&[]), none, file(""))));
    }
}

fuzz_target!(|input: Input| match input {
    Input::Written { arguments, file: text, environment } => {
        let words = arguments.split(|byte| *byte == 0).map(<[u8]>::to_vec).map(OsString::from_vec);
        let words = std::iter::once(OsString::from("heddled")).chain(words);
        let variable = |name: &str| {
            let mut lines = environment.lines().filter_map(|line| line.split_once('='));
            lines.find(|(given, _)| name.ends_with(given)).map(|(_, value)| value.to_owned())
        };
        match Flags::read(words, variable, file(&text)) {
            Ok(flags) => {
                for emit in &flags.files.emit {
                    assert_eq!(emit.to_string().parse::<Emit>().as_ref(), Ok(emit));
                    assert!(flags.files.settings(emit).starts_with(&emit.settings));
                }
                let id = flags.lease.node_id.as_ref();
                assert!(id.is_none_or(|id| id.as_str().parse::<NodeId>().is_ok()));
                assert!(!flags.lease.renew_margin().is_zero());
                assert!(flags.rules.iptables_resync > 0);
                flags.lease.etcd_options();
                flags.lease.network_label();
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // A line ending in an environment file is an ordinary character in the other sources.
    Input::Flag { which, value } if !value.contains(['\r', '\0']) => {
        everywhere(FLAGS[usize::from(which) % FLAGS.len()], &value);
    }
    Input::Flag { .. } => {}
});
