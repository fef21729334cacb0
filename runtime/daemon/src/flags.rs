//! The command line: flannel's flags, and Heddle's own.
//!
//! Operators have scripted around flannel's, which are Go's: one dash or two, `-flag value` or `-flag=value`, truth
//! values bare or as `=true`, and each flag also as an environment variable, `FLANNELD_ETCD_PREFIX`. The command line
//! wins over the environment, and the last of several values wins unless the flag is a list. An empty value, which is
//! what templates make of an unset variable, stands for the default.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
use heddle_core::node::NodeId;
use heddle_store::{EtcdOptions, StoreConfig};
use regex::Regex;

/// Joins this host to an overlay network: leases it a subnet and keeps the kernel as the backend plans it.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "heddled",
    version,
    disable_help_subcommand = true,
    args_override_self = true,
    after_help = "Every flag can also be given as an environment variable: FLANNELD_ and the flag's name in upper \
                  case with underscores, such as FLANNELD_ETCD_PREFIX. Flags may start with one dash."
)]
pub(crate) struct Flags {
    #[command(flatten, next_help_heading = "Leases")]
    pub(crate) lease: LeaseFlags,

    #[command(flatten, next_help_heading = "Interface")]
    pub(crate) interface: InterfaceFlags,

    #[command(flatten, next_help_heading = "Traffic rules (not programmed yet)")]
    pub(crate) rules: RuleFlags,

    #[command(flatten, next_help_heading = "Plugins and files")]
    pub(crate) files: FileFlags,

    #[command(flatten, next_help_heading = "Health and logs")]
    pub(crate) health: HealthFlags,

    #[command(flatten, next_help_heading = "Kubernetes (not supported yet)")]
    pub(crate) kubernetes: KubernetesFlags,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LeaseFlags {
    /// Where leases live: `etcd`, or `dir:PATH` for a directory of lease files
    #[arg(long, value_name = "STORE", default_value_t)]
    pub(crate) store: StoreConfig,

    /// etcd's client URLs
    #[arg(
        long,
        value_name = "URL,…",
        action = ArgAction::Set,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379"
    )]
    pub(crate) etcd_endpoints: Vec<String>,

    /// The etcd key below which the network's config and leases are
    #[arg(long, value_name = "KEY", default_value = "/coreos.com/network")]
    pub(crate) etcd_prefix: String,

    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_keyfile: Option<PathBuf>,

    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_certfile: Option<PathBuf>,

    /// Certificate authority that etcd's certificate is checked against (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,

    /// User name for etcd
    #[arg(long, value_name = "NAME")]
    pub(crate) etcd_username: Option<String>,

    /// Password for etcd
    #[arg(long, value_name = "PASSWORD")]
    pub(crate) etcd_password: Option<String>,

    /// How long before its end the lease is renewed, in minutes
    #[arg(
        long,
        value_name = "MINUTES",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=1439)
    )]
    subnet_lease_renew_margin: u64,

    /// This node's identity [default: derived from /etc/machine-id and the prefix]
    #[arg(long, value_name = "ID")]
    pub(crate) node_id: Option<NodeId>,
}

impl LeaseFlags {
    /// How long before its end the lease is renewed.
    pub(crate) fn renew_margin(&self) -> Duration {
        Duration::from_secs(self.subnet_lease_renew_margin * 60)
    }

    /// How etcd is reached.
    pub(crate) fn etcd_options(&self) -> EtcdOptions {
        EtcdOptions {
            ca_file: self.etcd_cafile.clone(),
            certificate_file: self.etcd_certfile.clone(),
            key_file: self.etcd_keyfile.clone(),
            username: self.etcd_username.clone(),
            password: self.etcd_password.clone(),
            ..EtcdOptions::new(&self.etcd_endpoints, &self.etcd_prefix)
        }
    }

    /// The network's name: what tells apart two daemons on one host.
    pub(crate) fn network_name(&self) -> String {
        match &self.store {
            StoreConfig::Etcd => self.etcd_prefix.trim_end_matches('/').to_owned(),
            StoreConfig::Directory(path) => path.display().to_string(),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InterfaceFlags {
    /// Interface between hosts, by name or address; the first given that exists
    #[arg(long, value_name = "NAME|IP")]
    pub(crate) iface: Vec<String>,

    /// Interface by regular expression, against addresses, then names; after --iface
    #[arg(long, value_name = "REGEX")]
    pub(crate) iface_regex: Vec<Regex>,

    /// Interface through which this address is reached
    #[arg(long, value_name = "IP")]
    pub(crate) iface_can_reach: Option<IpAddr>,

    /// IPv4 address under which other hosts reach this one [default: the interface's]
    #[arg(long, value_name = "IP")]
    pub(crate) public_ip: Option<Ipv4Addr>,

    /// IPv6 address under which other hosts reach this one [default: the interface's]
    #[arg(long, value_name = "IP")]
    pub(crate) public_ipv6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RuleFlags {
    /// Masquerade what leaves the overlay
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub(crate) ip_masq: bool,

    /// Masquerade without randomizing source ports
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub(crate) ip_masq_fully_random_disable: bool,

    /// How often traffic rules are checked, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) iptables_resync: u64,

    /// Accept the overlay's traffic in FORWARD
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub(crate) iptables_forward_rules: bool,

    /// Drop packets for addresses of the own subnet that no container has
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub(crate) ip_blackhole_route: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FileFlags {
    /// The file that tells Docker its subnet and MTU
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub(crate) subnet_file: PathBuf,

    /// Directory of plugins, which come before the built-in ones; repeatable, the first that has it wins
    #[arg(long, value_name = "DIR", default_values = ["/etc/heddle/plugins", "/usr/lib/heddle/plugins"])]
    pub(crate) plugin_dir: Vec<PathBuf>,

    /// Directory for compiled plugins
    #[arg(long, value_name = "DIR", default_value = "/var/cache/heddle")]
    pub(crate) cache_dir: PathBuf,

    /// Directory for this node's identity
    #[arg(long, value_name = "DIR", default_value = "/var/lib/heddle")]
    pub(crate) state_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HealthFlags {
    /// Address that /healthz, /readyz and /packets are served at
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub(crate) healthz_ip: IpAddr,

    /// TCP port that /healthz, /readyz and /packets are served at; 0: not at all
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) healthz_port: u16,

    /// How much is logged: 0 normal, 2 more, 5 everything
    #[arg(long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub(crate) verbosity: u8,

    // Of the library that flannel logs with; without a meaning here.
    #[arg(long, hide = true)]
    vmodule: Option<String>,

    #[arg(long = "log_backtrace_at", hide = true)]
    log_backtrace_at: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct KubernetesFlags {
    /// Leases from the Kubernetes API
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub(crate) kube_subnet_mgr: bool,

    #[arg(long, hide = true)]
    kube_api_url: Option<String>,

    #[arg(long, hide = true)]
    kubeconfig_file: Option<String>,

    #[arg(long, hide = true)]
    kube_annotation_prefix: Option<String>,

    #[arg(long, hide = true, value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    set_node_network_unavailable: Option<bool>,

    #[arg(long, hide = true)]
    net_config_path: Option<String>,
}

/// A truth value as Go's `strconv.ParseBool` reads it.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

impl Flags {
    /// Reads the command line, program name first, and the environment through `variable`.
    ///
    /// # Errors
    ///
    /// clap's error, which also stands for `--help` and `--version`.
    pub(crate) fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, clap::Error> {
        let command = Self::command();
        let mut arguments = arguments.into_iter();
        let program = arguments.next();
        let (mut given, rest) = read_like_go(&command, arguments);
        let mut from_environment = Vec::new();
        for name in command.get_arguments().filter_map(clap::Arg::get_long) {
            let value = variable(&variable_name(name)).filter(|value| !value.is_empty());
            if let Some(value) = value.filter(|_| !given.iter().any(|flag| flag.name == name)) {
                from_environment.push(name.to_owned());
                given.push(Given { name: name.to_owned(), value: Some(value.into()) });
            }
        }
        let flags = without_empty(&command, given).into_iter().map(Given::into_argument);
        let arguments: Vec<_> = program.into_iter().chain(flags).chain(rest).collect();
        let matches = command.try_get_matches_from(arguments);
        matches
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| blame_environment(error, &from_environment))
    }
}

/// One flag of the command line.
struct Given {
    name: String,
    value: Option<OsString>,
}

impl Given {
    /// Takes `-name`, `--name`, `-name=value` or `--name=value` apart.
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

    /// The flag as clap reads it, unmistakably.
    fn into_argument(self) -> OsString {
        let mut argument = OsString::from(format!("--{}", self.name));
        if let Some(value) = self.value {
            argument.push("=");
            argument.push(value);
        }
        argument
    }
}

/// Reads flags as Go's package `flag` does: up to the first argument that is none, and the argument after a flag that
/// needs a value is the value, whatever it looks like. Returns the flags and the arguments after them.
fn read_like_go(
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

/// Drops flags whose value is empty, which stands for the default: with it go earlier values, unless it is a list.
fn without_empty(command: &clap::Command, given: Vec<Given>) -> Vec<Given> {
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

/// The flag of that name, if it needs a value: truth values may be bare.
fn valued<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    let mut flags = command.get_arguments();
    flags.find(|flag| flag.get_long() == Some(name) && !flag.is_require_equals_set())
}

fn variable_name(flag: &str) -> String {
    format!("FLANNELD_{}", flag.to_uppercase().replace('-', "_"))
}

/// Lets an error about a flag name the environment variable that it came from.
fn blame_environment(mut error: clap::Error, from_environment: &[String]) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let blamed = from_environment.iter().find(|name| {
        let rest = argument.strip_prefix("--").and_then(|text| text.strip_prefix(name.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '=', '[']))
    });
    if let Some(name) = blamed {
        let source = format!("{argument} (from the environment variable {})", variable_name(name));
        error.insert(ContextKind::InvalidArg, ContextValue::String(source));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments are separated by spaces; `""` is an empty one.
    fn read(arguments: &str, environment: &[(&str, &str)]) -> Result<Flags, String> {
        let words = arguments.split_whitespace().map(|word| if word == "\"\"" { "" } else { word });
        let arguments = std::iter::once("heddled").chain(words);
        let variable = |name: &str| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Flags::read(arguments.map(OsString::from), variable).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_flannel_s() {
        let flags = read("", &[]).unwrap();
        assert_eq!(flags.lease.etcd_endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
        assert_eq!(flags.lease.etcd_prefix, "/coreos.com/network");
        assert_eq!(flags.lease.renew_margin(), Duration::from_secs(3600));
        assert_eq!(flags.files.subnet_file.to_str(), Some("/run/flannel/subnet.env"));
        assert_eq!((flags.health.healthz_port, flags.rules.iptables_resync), (0, 5));
        assert!(flags.rules.iptables_forward_rules && !flags.rules.ip_masq);
        assert!(!flags.rules.ip_masq_fully_random_disable && !flags.rules.ip_blackhole_route);
    }

    #[test]
    fn flags_may_have_one_dash_or_two_and_a_value_either_way() {
        for arguments in [
            "-etcd-prefix /x -iface eth0 -iface=eth1 -v 5",
            "--etcd-prefix=/x --iface eth0 --iface=eth1 --v=5",
            "-etcd-prefix=/x --iface=eth0 -iface eth1 -v=5",
        ] {
            let flags = read(arguments, &[]).unwrap();
            assert_eq!(flags.lease.etcd_prefix, "/x");
            assert_eq!(flags.interface.iface, ["eth0", "eth1"]);
            assert_eq!(flags.health.verbosity, 5);
        }
    }

    #[test]
    fn truth_values_are_bare_or_after_an_equals_sign() {
        for (argument, value) in
            [("--ip-masq", true), ("-ip-masq=true", true), ("--ip-masq=0", false), ("", false)]
        {
            assert_eq!(read(argument, &[]).unwrap().rules.ip_masq, value, "{argument}");
        }
        assert!(!read("--iptables-forward-rules=false", &[]).unwrap().rules.iptables_forward_rules);
    }

    #[test]
    fn the_last_of_several_values_counts_unless_the_flag_is_a_list() {
        let flags = read(
            "--ip-masq -v=2 --etcd-endpoints=http://a,http://b --iface=eth1 --iface-regex=^a --plugin-dir=/a \
             --ip-masq=false --v 5 --etcd-endpoints http://c,http://d --iface eth0 --iface-regex ^b --plugin-dir /b",
            &[],
        )
        .unwrap();
        assert!(!flags.rules.ip_masq);
        assert_eq!(flags.health.verbosity, 5);
        assert_eq!(flags.lease.etcd_endpoints, ["http://c", "http://d"]);
        assert_eq!(flags.interface.iface, ["eth1", "eth0"]);
        let patterns: Vec<_> = flags.interface.iface_regex.iter().map(Regex::as_str).collect();
        assert_eq!(patterns, ["^a", "^b"]);
        assert_eq!(flags.files.plugin_dir, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(read("--ip-masq -ip-masq", &[]).unwrap().rules.ip_masq);
    }

    #[test]
    fn an_empty_value_stands_for_the_default() {
        let default = format!("{:?}", read("", &[]).unwrap());
        for arguments in [
            "--iface=",
            "-iface \"\" -iface-regex=",
            "--iface-can-reach \"\"",
            "--public-ip= --public-ipv6=",
            "--etcd-cafile= --etcd-certfile= --etcd-keyfile= --etcd-username= --etcd-password=",
            "--etcd-endpoints= --etcd-prefix= --subnet-file= --plugin-dir=",
            "--healthz-port= --v= --store= --node-id=",
            "--public-ip=192.0.2.1 --public-ip=",
            "--etcd-endpoints=http://a,http://b --etcd-endpoints \"\"",
        ] {
            assert_eq!(format!("{:?}", read(arguments, &[]).unwrap()), default, "{arguments}");
        }
        let flags = read("--public-ip= --iface=eth1 --iface= --public-ip=192.0.2.1", &[]).unwrap();
        assert_eq!(flags.interface.public_ip, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(flags.interface.iface, ["eth1"]);
    }

    #[test]
    fn an_empty_value_wins_over_the_environment() {
        let environment = [("FLANNELD_PUBLIC_IP", "192.0.2.1"), ("FLANNELD_IFACE", "eth7")];
        let flags = read("--public-ip= --iface \"\"", &environment).unwrap();
        assert_eq!(flags.interface.public_ip, None);
        assert!(flags.interface.iface.is_empty());
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        let flags = read("--etcd-password -iface --etcd-username --x=y", &[]).unwrap();
        assert_eq!(flags.lease.etcd_password.as_deref(), Some("-iface"));
        assert_eq!(flags.lease.etcd_username.as_deref(), Some("--x=y"));
        assert!(flags.interface.iface.is_empty());
    }

    #[test]
    fn the_environment_stands_in_for_flags_that_are_not_given() {
        let environment = [
            ("FLANNELD_ETCD_PREFIX", "/env"),
            ("FLANNELD_IP_MASQ", "true"),
            ("FLANNELD_HEALTHZ_PORT", ""),
            ("FLANNELD_IFACE", "eth7"),
            ("FLANNELD_V", "2"),
        ];
        let flags = read("-iface eth0", &environment).unwrap();
        assert_eq!(flags.lease.etcd_prefix, "/env");
        assert_eq!(flags.interface.iface, ["eth0"]);
        assert_eq!((flags.rules.ip_masq, flags.health.healthz_port), (true, 0));
        assert_eq!(flags.health.verbosity, 2);
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag_or_variable() {
        for (arguments, environment, expected) in [
            ("--healthz-port 99999", &[][..], "--healthz-port <PORT>"),
            ("--subnet-lease-renew-margin 1440", &[], "--subnet-lease-renew-margin <MINUTES>"),
            ("--public-ip fd00::1", &[], "--public-ip <IP>"),
            ("--iface-regex (", &[], "--iface-regex <REGEX>"),
            ("--ip-masq=maybe", &[], "expected true or false"),
            ("--ip-masq= --ip-masq", &[], "--ip-masq"),
            ("--etcd-prefix", &[], "--etcd-prefix <KEY>"),
            ("-v=2 stray", &[], "stray"),
            ("--store consul", &[], "dir:PATH"),
            ("--nonsense", &[], "--nonsense"),
            (
                "",
                &[("FLANNELD_HEALTHZ_PORT", "x")],
                "(from the environment variable FLANNELD_HEALTHZ_PORT)",
            ),
            ("", &[("FLANNELD_IP_MASQ", "x")], "FLANNELD_IP_MASQ"),
        ] {
            let error = read(arguments, environment).unwrap_err();
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }

    #[test]
    fn help_and_version_have_a_short_form() {
        for (arguments, expected) in [("-h", "Usage: heddled"), ("-V", "heddled ")] {
            assert!(read(arguments, &[]).unwrap_err().contains(expected), "{arguments}");
        }
    }

    #[test]
    fn the_declaration_is_consistent() {
        Flags::command().debug_assert();
    }
}
