//! The daemon's flags: flannel's, and Heddle's own.
//!
//! Operators' scripts rely on flannel's flags, which follow Go's rules: one dash or two, `-flag
//! value` or `-flag=value`, booleans bare or as `=true`, and each flag also as an environment
//! variable, `FLANNELD_ETCD_PREFIX`. The command line takes precedence over `--environment-file`,
//! which takes precedence over the environment. The last of several values wins unless the flag is
//! a list. An empty value, which is what templates make of an unset variable, stands for the
//! default.
//!
//! This is a separate crate, because the command line tool inspects a host with the same flags
//! (`heddle doctor`).

mod emit;
mod environment_file;
mod identity;
mod like_go;

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
use heddle_core::address::is_host;
use heddle_core::interface::Selection;
use heddle_core::node::NodeId;
use heddle_files::ReadError;
use heddle_store::{EtcdOptions, StoreConfig};
use ipnet::IpNet;
use regex::Regex;

pub use crate::emit::{Emit, InvalidEmit};
pub use crate::environment_file::read_environment_file;
pub use crate::identity::{Identity, IdentityError};

use crate::environment_file::{Assignment, assignments};
use crate::like_go::{Given, read_like_go, without_empty};

/// Name of the flag for a file with variables of other flags.
const ENVIRONMENT_FILE: &str = "environment-file";

/// Name of the flag whose variable may have several values, separated by white space.
const EMIT: &str = "emit";

/// Joins this host to an overlay network: leases a subnet and keeps the kernel as the backend plans
/// it.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "heddled",
    version,
    disable_help_subcommand = true,
    args_override_self = true,
    after_help = "Each flag has an environment variable: FLANNELD_ and the flag's name in upper case with underscores, \
                  such as FLANNELD_ETCD_PREFIX. The command line precedes --environment-file, which precedes the \
                  environment. As with flannel, flags start with one dash or two.\n\n\
                  Exit codes: 0 after SIGTERM or SIGINT, 1 after a failure, 2 for an invalid command line."
)]
pub struct Flags {
    /// Flags for the lease store and this node's lease.
    #[command(flatten, next_help_heading = "Leases")]
    pub lease: LeaseFlags,

    /// Flags for the interface between hosts.
    #[command(flatten, next_help_heading = "Interface")]
    pub interface: InterfaceFlags,

    /// Flags for traffic rules.
    #[command(flatten, next_help_heading = "Traffic rules")]
    pub rules: RuleFlags,

    /// Flags for plugins and files.
    #[command(flatten, next_help_heading = "Plugins and files")]
    pub files: FileFlags,

    /// Flags for the control socket.
    #[command(flatten, next_help_heading = "Control")]
    pub control: ControlFlags,

    /// Flags for health endpoints and logs.
    #[command(flatten, next_help_heading = "Health and logs")]
    pub health: HealthFlags,

    /// Flags for Kubernetes, which is not supported yet.
    #[command(flatten, next_help_heading = "Kubernetes (not supported yet)")]
    pub kubernetes: KubernetesFlags,
}

/// The lease store, and this node's lease in it.
#[derive(Clone, Debug, Args)]
pub struct LeaseFlags {
    /// Lease store: `etcd`, or `dir:PATH` for a directory of lease files
    #[arg(long, value_name = "STORE", default_value_t)]
    pub store: StoreConfig,

    /// Client URLs of etcd, separated by commas
    #[arg(
        long,
        value_name = "URL,…",
        action = ArgAction::Set,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379"
    )]
    pub etcd_endpoints: Vec<String>,

    /// Prefix of the etcd keys of the network config and the leases
    #[arg(long, value_name = "KEY", default_value = "/coreos.com/network")]
    pub etcd_prefix: String,

    /// Private key of the client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub etcd_keyfile: Option<PathBuf>,

    /// Client certificate for etcd (PEM)
    #[arg(long, value_name = "FILE")]
    pub etcd_certfile: Option<PathBuf>,

    /// Certificate authority that signed etcd's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,

    /// User name for etcd
    #[arg(long, value_name = "NAME")]
    pub etcd_username: Option<String>,

    /// Password for etcd
    #[arg(long, value_name = "PASSWORD")]
    pub etcd_password: Option<String>,

    /// Minutes between the renewal of the lease and its expiry
    #[arg(
        long,
        value_name = "MINUTES",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=1439)
    )]
    subnet_lease_renew_margin: u64,

    /// Identity of this node in its lease [default: derived from /etc/machine-id and the prefix]
    #[arg(long, value_name = "ID")]
    pub node_id: Option<NodeId>,
}

impl LeaseFlags {
    /// Returns the time before its expiry at which the lease is renewed.
    pub fn renew_margin(&self) -> Duration {
        Duration::from_secs(self.subnet_lease_renew_margin * 60)
    }

    /// Returns the options for the connection to etcd.
    pub fn etcd_options(&self) -> EtcdOptions {
        EtcdOptions {
            ca_file: self.etcd_cafile.clone(),
            certificate_file: self.etcd_certfile.clone(),
            key_file: self.etcd_keyfile.clone(),
            username: self.etcd_username.clone(),
            password: self.etcd_password.clone(),
            ..EtcdOptions::new(&self.etcd_endpoints, &self.etcd_prefix)
        }
    }

    /// Returns the network's name, which tells apart two daemons on one host.
    pub fn network_name(&self) -> String {
        match &self.store {
            StoreConfig::Etcd => self.etcd_prefix.trim_end_matches('/').to_owned(),
            StoreConfig::Directory(path) => path.display().to_string(),
        }
    }

    /// Returns the network's name with the kind of store, as in the aliases of the daemon's devices
    /// (`heddle_kernel::alias`).
    pub fn network_label(&self) -> String {
        match &self.store {
            StoreConfig::Etcd => self.network_name(),
            StoreConfig::Directory(_) => format!("dir:{}", self.network_name()),
        }
    }
}

/// The interface and the addresses at which other hosts reach this one.
#[derive(Clone, Debug, Args)]
pub struct InterfaceFlags {
    /// Interface between hosts, by name or address; repeatable, the first that exists is used
    #[arg(long, value_name = "NAME|IP")]
    pub iface: Vec<String>,

    /// Regular expression for the interface, matched with addresses, then with names, if no --iface
    /// exists; repeatable
    #[arg(long, value_name = "REGEX")]
    pub iface_regex: Vec<Regex>,

    /// Address whose route selects the interface
    #[arg(long, value_name = "IP")]
    pub iface_can_reach: Option<IpAddr>,

    /// IPv4 address at which other hosts reach this one [default: the interface's]
    #[arg(long, value_name = "IP", value_parser = public_address::<Ipv4Addr>)]
    pub public_ip: Option<Ipv4Addr>,

    /// IPv6 address at which other hosts reach this one [default: the interface's]
    #[arg(long, value_name = "IP", value_parser = public_address::<Ipv6Addr>)]
    pub public_ipv6: Option<Ipv6Addr>,
}

impl InterfaceFlags {
    /// Returns the operator's flags for the choice of the interface.
    pub fn selection(&self) -> Selection {
        Selection {
            names: self.iface.clone(),
            patterns: self.iface_regex.clone(),
            can_reach: self.iface_can_reach,
            public_ip: self.public_ip,
            public_ipv6: self.public_ipv6,
        }
    }
}

/// Masquerading, forwarding and related rules.
#[derive(Clone, Debug, Args)]
pub struct RuleFlags {
    /// Masquerade traffic that leaves the overlay
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub ip_masq: bool,

    /// Masquerade without random source ports
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub ip_masq_fully_random_disable: bool,

    /// Seconds between checks of the traffic rules
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub iptables_resync: u64,

    /// Accept the overlay's traffic in the FORWARD chain
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub iptables_forward_rules: bool,

    /// Install a blackhole route for this node's subnet, which applies while no bridge has the subnet
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub ip_blackhole_route: bool,

    /// Networks outside the overlay to which peers may send through this node with udp and
    /// vxlan-tun [default: none]
    #[arg(long, value_name = "CIDR,…", action = ArgAction::Set, value_delimiter = ',',
          value_parser = network)]
    pub allow_destinations: Vec<IpNet>,
}

/// Plugins, their directories, and the files to write.
#[derive(Clone, Debug, Args)]
pub struct FileFlags {
    /// File for the node's subnet and MTU, for Docker and scripts
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub subnet_file: PathBuf,

    /// Directory of plugins, searched before the built-in ones; repeatable, searched in this order
    #[arg(long, value_name = "DIR", default_values = ["/etc/heddle/plugins", "/usr/lib/heddle/plugins"])]
    pub plugin_dir: Vec<PathBuf>,

    /// Plugin policy: grants, limits and pinned digests; the default file need not exist
    #[arg(long, value_name = "FILE", default_value = "/etc/heddle/plugins.toml")]
    pub plugin_policy: PathBuf,

    /// Directory for compiled plugins
    #[arg(long, value_name = "DIR", default_value = "/var/cache/heddle")]
    pub cache_dir: PathBuf,

    /// Directory for the node's identity
    #[arg(long, value_name = "DIR", default_value = "/var/lib/heddle")]
    pub state_dir: PathBuf,

    /// Emitter and its settings, such as docker-opts:key=DOCKER_NETWORK_OPTIONS; repeatable, or
    /// separated by white space in the environment
    #[arg(long, value_name = "NAME[:SETTING=VALUE,…]", default_value = "subnet-env")]
    pub emit: Vec<Emit>,

    /// File of FLANNELD_ variables, read again on SIGHUP; prefix with `-` to ignore a missing file
    #[arg(long, value_name = "FILE")]
    pub environment_file: Option<OsString>,
}

/// The emitter whose output file has a flag of its own, `--subnet-file`. The flag is the default of
/// its setting `path`.
const SUBNET_ENV: &str = "subnet-env";

/// Size limit of a subnet.env, in bytes: a hundred times what is ever written there.
pub const SUBNET_ENV_LIMIT: u64 = 64 << 10;

/// Name of the setting for an output file.
const PATH: &str = "path";

impl FileFlags {
    /// Returns the settings of an emitter as names and values: those given with `--emit`, and
    /// `--subnet-file` for the emitter of subnet.env.
    pub fn settings(&self, asked: &Emit) -> Vec<(String, String)> {
        let mut settings = asked.settings.clone();
        if asked.emitter == SUBNET_ENV && asked.setting(PATH).is_none() {
            settings.push((PATH.to_owned(), self.subnet_file.display().to_string()));
        }
        settings
    }

    /// Returns the path of subnet.env, in which a previous run recorded the node's subnet.
    pub fn subnet_env(&self) -> &Path {
        let mut asked = self.emit.iter().filter(|asked| asked.emitter == SUBNET_ENV);
        asked.find_map(|asked| asked.setting(PATH)).map_or(&self.subnet_file, Path::new)
    }

    /// Reads the subnet.env of a previous run: a regular file of at most 64 KiB. Returns an empty
    /// text if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the file exists, but is unreadable, not a regular file, too large, or not
    /// UTF-8.
    pub fn read_subnet_env(&self) -> Result<String, ReadError> {
        match heddle_files::read_text(self.subnet_env(), SUBNET_ENV_LIMIT) {
            Err(error) if error.is_not_found() => Ok(String::new()),
            read => read,
        }
    }
}

/// The control socket of the daemon, and reachability probes.
#[derive(Clone, Debug, Args)]
pub struct ControlFlags {
    /// Unix socket for queries, such as those of `heddle status`
    #[arg(long, value_name = "FILE", default_value = "/run/heddle/heddled.sock")]
    pub control_socket: PathBuf,

    /// Group whose members may use the control socket [default: root only]
    #[arg(long, value_name = "GROUP")]
    pub control_group: Option<String>,

    /// Seconds between reachability probes to each peer, ICMP echo requests over the overlay; 0
    /// disables probing
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub probe_interval: u64,
}

/// The HTTP endpoints and the log.
#[derive(Clone, Debug, Args)]
pub struct HealthFlags {
    /// IP address for /healthz, /readyz and /packets; the default, as in flannel, is every IPv4
    /// address of this host, and 127.0.0.1 keeps other hosts out
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub healthz_ip: IpAddr,

    /// TCP port for /healthz, /readyz and /packets; 0 disables them
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub healthz_port: u16,

    /// IP address and TCP port for the status page (/), /status.json and /metrics; a port alone means
    /// 127.0.0.1 [default: disabled]
    #[arg(long, value_name = "[IP:]PORT", value_parser = address)]
    pub status_address: Option<SocketAddr>,

    /// Log level: 0 info, 2 debug, 5 trace
    #[arg(long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,

    // Flags of flannel's logging library; accepted and ignored.
    #[arg(long, hide = true)]
    vmodule: Option<String>,

    #[arg(long = "log_backtrace_at", hide = true)]
    log_backtrace_at: Option<String>,
}

/// flannel's flags for Kubernetes.
#[derive(Clone, Debug, Args)]
pub struct KubernetesFlags {
    /// Read leases from the Kubernetes API; heddled refuses to start with it
    #[arg(long, value_name = "BOOL", value_parser = truth, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub kube_subnet_mgr: bool,

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

/// Parses a boolean as Go's `strconv.ParseBool` does.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Parses a network, or an address as the network of that address alone.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "expected a network, such as 192.0.2.0/24, or an address".to_owned())
}

/// Parses an address at which other hosts can reach this one.
fn public_address<A: FromStr + Copy + Into<IpAddr>>(text: &str) -> Result<A, String> {
    let address = text.parse::<A>().ok().filter(|address| is_host((*address).into()));
    address.ok_or_else(|| {
        "expected an address at which other hosts reach this one: no loopback, multicast or broadcast address".to_owned()
    })
}

/// Parses the address of a listener: a port alone means the loopback address.
fn address(text: &str) -> Result<SocketAddr, String> {
    let on_loopback = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, text.parse().ok()?)));
    let found = text.parse().ok().or_else(on_loopback).filter(|found| found.port() != 0);
    found.ok_or_else(|| "expected a port, such as 9981, or 192.0.2.1:9981, or [::]:9981".to_owned())
}

impl Flags {
    /// Parses the command line, which begins with the program's name. Flags missing there are taken
    /// from `--environment-file`, read through `file`, and flags missing there from the
    /// environment, through `variable`.
    ///
    /// # Errors
    ///
    /// clap's error, which also stands for `--help` and `--version`.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<String>,
        file: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let mut arguments = arguments.into_iter();
        let program = arguments.next();
        let (mut given, rest) = read_like_go(&command, arguments);
        let stated = given.iter().rfind(|flag| flag.name == ENVIRONMENT_FILE);
        let stated = stated.map(|flag| flag.value.clone().unwrap_or_default());
        let path =
            stated.or_else(|| variable(&variable_name(ENVIRONMENT_FILE)).map(OsString::from));
        let from_file = match path.filter(|path| !path.is_empty()) {
            Some(path) => variables(&mut command, &path, file)?,
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
        let flags = without_empty(&command, given).into_iter().map(Given::into_argument);
        let arguments: Vec<_> = program.into_iter().chain(flags).chain(rest).collect();
        let matches = command.try_get_matches_from(arguments);
        matches
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| blame(error, &origins))
    }

    /// Parses the flags of this process, with its environment and the real files.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn of_process(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::read(arguments, |name| std::env::var(name).ok(), read_environment_file)
    }
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

/// Prefix of the flags' environment variables.
const PREFIX: &str = "FLANNELD_";

fn variable_name(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Adds the origin of the value to an error about a flag, unless it is from the command line.
fn blame(mut error: clap::Error, origins: &[(String, String)]) -> clap::Error {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses arguments separated by spaces; `""` is an empty one.
    fn read(arguments: &str, environment: &[(&str, &str)]) -> Result<Flags, String> {
        let words = arguments.split_whitespace().map(|word| if word == "\"\"" { "" } else { word });
        let arguments = std::iter::once("heddled").chain(words);
        let variable = |name: &str| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let file = |path: &Path| match path.to_str() {
            Some("/etc/default/heddled") => Ok(FILE.to_owned()),
            Some("/etc/default/bad") => Ok("FLANNELD_V=x".to_owned()),
            Some("/etc/default/shell") => Ok("export FLANNELD_V=5\n".to_owned()),
            Some("/etc/default/wrong") => Ok("\nFLANNELD_ETCD_PREFX=/x\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        Flags::read(arguments.map(OsString::from), variable, file)
            .map_err(|error| error.to_string())
    }

    const FILE: &str = "# all of it\nFLANNELD_ETCD_PREFIX=/file\nFLANNELD_IFACE=eth7\nFLANNELD_V=\"9\"\n\
                        FLANNELD_PUBLIC_IP=\nGOMAXPROCS=1\nFLANNELD_EMIT=\"subnet-env docker-opts:key=X\"\n";

    #[test]
    fn environment_file_ranks_between_arguments_and_environment() {
        let environment = [
            ("FLANNELD_ETCD_PREFIX", "/env"),
            ("FLANNELD_PUBLIC_IP", "192.0.2.1"),
            ("FLANNELD_IP_MASQ", "true"),
            ("FLANNELD_ENVIRONMENT_FILE", "/etc/default/heddled"),
        ];
        for arguments in ["--v=3", "--v=3 --environment-file=-/etc/default/heddled"] {
            let flags = read(arguments, &environment).unwrap();
            assert_eq!(flags.lease.etcd_prefix, "/file");
            assert_eq!(flags.interface.iface, ["eth7"]);
            assert_eq!(flags.interface.public_ip, None);
            assert_eq!((flags.health.verbosity, flags.rules.ip_masq), (3, true));
            let emitters: Vec<_> = flags.files.emit.iter().map(Emit::to_string).collect();
            assert_eq!(emitters, ["subnet-env", "docker-opts:key=X"]);
        }
        assert_eq!(read("--environment-file=", &environment).unwrap().lease.etcd_prefix, "/env");
    }

    #[test]
    fn emitters_given_replace_the_default() {
        let emitters = |arguments: &str, environment: &[(&str, &str)]| -> Vec<String> {
            read(arguments, environment).unwrap().files.emit.iter().map(Emit::to_string).collect()
        };
        assert_eq!(emitters("", &[]), ["subnet-env"]);
        assert_eq!(emitters("", &[("FLANNELD_EMIT", " ")]), ["subnet-env"]);
        assert_eq!(emitters("--emit a --emit=b:c=d", &[("FLANNELD_EMIT", "x")]), ["a", "b:c=d"]);
        assert_eq!(emitters("", &[("FLANNELD_EMIT", "a  b")]), ["a", "b"]);
    }

    #[test]
    fn subnet_env_path_follows_the_emitter_setting() {
        for (arguments, expected) in [
            ("", "/run/flannel/subnet.env"),
            ("--subnet-file=/run/a", "/run/a"),
            ("--subnet-file=/run/a --emit=docker-opts:path=/run/b", "/run/a"),
            ("--subnet-file=/run/a --emit=subnet-env:path=/run/c", "/run/c"),
        ] {
            let files = read(arguments, &[]).unwrap().files;
            assert_eq!(files.subnet_env(), Path::new(expected));
            let asked = "subnet-env".parse().unwrap();
            let path = ("path".to_owned(), files.subnet_file.display().to_string());
            assert_eq!(files.settings(&asked), [path]);
            assert!(
                files.emit.iter().all(|asked| asked.setting("path").is_none()
                    || files.settings(asked) == asked.settings)
            );
        }
    }

    #[test]
    fn unusable_environment_file_is_named() {
        for (file, expected) in [
            ("/missing", "--environment-file: cannot read /missing"),
            ("/etc/default/wrong", "/etc/default/wrong, line 2: FLANNELD_ETCD_PREFX is no flag's"),
            ("/etc/default/shell", "/etc/default/shell, line 1: export FLANNELD_V is no flag's"),
            ("/etc/default/bad", "--v <LEVEL> (from FLANNELD_V in /etc/default/bad)"),
        ] {
            let error = read(&format!("--environment-file {file}"), &[]).unwrap_err();
            assert!(error.contains(expected), "{file}: {error}");
        }
        assert!(read("--environment-file=-/missing", &[]).is_ok());
    }

    #[test]
    fn defaults_match_flannel() {
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
    fn status_address_defaults_to_loopback() {
        let read = |arguments: &str| read(arguments, &[]).map(|flags| flags.health.status_address);
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("--status-address="), Ok(None));
        for (given, expected) in [
            ("9981", "127.0.0.1:9981"),
            ("0.0.0.0:9981", "0.0.0.0:9981"),
            ("[::1]:9981", "[::1]:9981"),
        ] {
            let found = read(&format!("--status-address={given}")).unwrap();
            assert_eq!(found, Some(expected.parse().unwrap()), "{given}");
        }
        for given in ["0", "127.0.0.1:0", "127.0.0.1", "localhost:9981", "99999", "::1:x"] {
            let error = read(&format!("--status-address={given}")).unwrap_err();
            assert!(error.contains("192.0.2.1:9981"), "{given}: {error}");
        }
    }

    #[test]
    fn allowed_destinations_are_networks_or_addresses() {
        let read = |arguments: &str, environment: &[_]| {
            read(arguments, environment).map(|flags| flags.rules.allow_destinations)
        };
        let networks = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(read("", &[]).unwrap(), []);
        let variable = [("FLANNELD_ALLOW_DESTINATIONS", "192.0.2.0/24,2001:db8::1")];
        assert_eq!(read("", &variable).unwrap(), networks(&["192.0.2.0/24", "2001:db8::1/128"]));
        let given = read("-allow-destinations=0.0.0.0/0,192.0.2.7", &variable);
        assert_eq!(given.unwrap(), networks(&["0.0.0.0/0", "192.0.2.7/32"]));
        let error = read("--allow-destinations=192.0.2.0/33", &[]).unwrap_err();
        assert!(error.contains("--allow-destinations") && error.contains("a network"), "{error}");
    }

    #[test]
    fn flags_accept_one_or_two_dashes_and_both_value_forms() {
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
    fn booleans_are_bare_or_follow_an_equals_sign() {
        for (argument, value) in
            [("--ip-masq", true), ("-ip-masq=true", true), ("--ip-masq=0", false), ("", false)]
        {
            assert_eq!(read(argument, &[]).unwrap().rules.ip_masq, value, "{argument}");
        }
        assert!(!read("--iptables-forward-rules=false", &[]).unwrap().rules.iptables_forward_rules);
    }

    #[test]
    fn last_value_wins_unless_the_flag_is_a_list() {
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
    fn empty_value_stands_for_the_default() {
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
    fn public_address_of_no_host_is_refused() {
        for arguments in [
            "--public-ip=127.0.0.1",
            "--public-ip=0.0.0.0",
            "--public-ip=224.0.0.9",
            "--public-ip=192.0.2.300",
            "--public-ipv6=::1",
            "--public-ipv6=192.0.2.1",
        ] {
            let refusal = read(arguments, &[]).unwrap_err();
            let (flag, value) = arguments.split_once('=').unwrap();
            assert!(refusal.contains(flag) && refusal.contains(value), "{refusal}");
            assert!(refusal.contains("at which other hosts reach this one"), "{refusal}");
        }
        assert!(read("--public-ip=192.0.2.1 --public-ipv6=2001:db8::1", &[]).is_ok());
    }

    #[test]
    fn empty_value_overrides_the_environment() {
        let environment = [("FLANNELD_PUBLIC_IP", "192.0.2.1"), ("FLANNELD_IFACE", "eth7")];
        let flags = read("--public-ip= --iface \"\"", &environment).unwrap();
        assert_eq!(flags.interface.public_ip, None);
        assert!(flags.interface.iface.is_empty());
    }

    #[test]
    fn value_that_looks_like_a_flag_is_accepted() {
        let flags = read("--etcd-password -iface --etcd-username --x=y", &[]).unwrap();
        assert_eq!(flags.lease.etcd_password.as_deref(), Some("-iface"));
        assert_eq!(flags.lease.etcd_username.as_deref(), Some("--x=y"));
        assert!(flags.interface.iface.is_empty());
    }

    #[test]
    fn environment_supplies_missing_flags() {
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
    fn invalid_value_is_named_with_its_flag_or_variable() {
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
    fn flag_declarations_are_consistent() {
        Flags::command().debug_assert();
    }
}
