//! The command line: flannel's flags, and Heddle's own.
//!
//! Operators have scripted around flannel's, which are Go's: one dash or two, `-flag value` or `-flag=value`, truth
//! values bare or as `=true`, and each flag also as an environment variable, `FLANNELD_ETCD_PREFIX`. The command line
//! wins over the environment, and an empty variable counts as not set.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    /// Address that /healthz and /readyz are served at
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub(crate) healthz_ip: IpAddr,

    /// TCP port that /healthz and /readyz are served at; 0: not at all
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
        let mut arguments: Vec<_> = arguments.into_iter().map(two_dashes).collect();
        let command = Self::command();
        let given = given_flags(&arguments);
        let mut from_environment = Vec::new();
        for name in command.get_arguments().filter_map(clap::Arg::get_long) {
            let value = variable(&variable_name(name)).filter(|value| !value.is_empty());
            if let Some(value) = value.filter(|_| !given.iter().any(|flag| flag == name)) {
                from_environment.push(name.to_owned());
                arguments.push(format!("--{name}={value}").into());
            }
        }
        let matches = command.try_get_matches_from(arguments);
        matches
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| blame_environment(error, &from_environment))
    }
}

/// Go's flags have one dash or two; clap's long ones have two.
fn two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text.len() > 1 && text.starts_with('-') && !text.starts_with("--") => {
            let name = match text {
                "-h" => "help",
                "-V" => "version",
                _ => &text[1..],
            };
            format!("--{name}").into()
        }
        _ => argument,
    }
}

fn given_flags(arguments: &[OsString]) -> Vec<String> {
    let text = arguments.iter().filter_map(|argument| argument.to_str()?.strip_prefix("--"));
    text.map(|flag| flag.split('=').next().unwrap_or_default().to_owned()).collect()
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

    fn read(arguments: &str, environment: &[(&str, &str)]) -> Result<Flags, String> {
        let arguments = std::iter::once("heddled").chain(arguments.split_whitespace());
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
    fn the_declaration_is_consistent() {
        Flags::command().debug_assert();
    }
}
