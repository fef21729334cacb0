//! The flags, in the groups in which `--help` lists them.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use heddle_core::interface::Selection;
use heddle_core::node::NodeId;
use heddle_files::ReadError;
use heddle_store::{EtcdOptions, StoreConfig};
use ipnet::IpNet;
use regex::Regex;

use crate::emit::Emit;
use crate::go_bool::GoBool;
use crate::go_int::{healthz_port, level, margin, resync};
use crate::values::{absolute, clean_key, healthz_ip, listener, network, public_address};

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
    #[arg(long, value_name = "KEY", default_value = "/coreos.com/network", value_parser = clean_key)]
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
        value_parser = margin
    )]
    subnet_lease_renew_margin: u64,

    /// Identity of this node in its lease [default: derived from /etc/machine-id and the prefix]
    #[arg(long, value_name = "ID")]
    pub node_id: Option<NodeId>,
}

impl LeaseFlags {
    /// Drops empty endpoints, and completes those without a scheme: with TLS files it is https.
    pub(crate) fn complete_endpoints(&mut self) {
        let files = [&self.etcd_cafile, &self.etcd_certfile, &self.etcd_keyfile];
        let scheme = if files.iter().any(|file| file.is_some()) { "https" } else { "http" };
        let given = std::mem::take(&mut self.etcd_endpoints).into_iter();
        let trimmed = given.map(|endpoint| endpoint.trim().trim_end_matches('/').to_owned());
        let complete = trimmed.filter(|endpoint| !endpoint.is_empty()).map(|endpoint| {
            if endpoint.contains("://") { endpoint } else { format!("{scheme}://{endpoint}") }
        });
        self.etcd_endpoints = complete.collect();
    }

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
            published: Vec::new(),
        }
    }
}

/// Masquerading, forwarding and related rules.
#[derive(Clone, Debug, Args)]
pub struct RuleFlags {
    /// Masquerade traffic that leaves the overlay
    #[arg(long, go_bool = Some("false"))]
    pub ip_masq: bool,

    /// Masquerade without random source ports
    #[arg(long, go_bool = Some("false"))]
    pub ip_masq_fully_random_disable: bool,

    /// Seconds between checks of the traffic rules
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = resync)]
    pub iptables_resync: u64,

    /// Accept the overlay's traffic in the FORWARD chain
    #[arg(long, go_bool = Some("true"))]
    pub iptables_forward_rules: bool,

    /// Install a blackhole route for this node's subnet, which applies while no bridge has the subnet
    #[arg(long, go_bool = Some("false"))]
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
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env", value_parser = absolute)]
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

    /// Directory for the node's identity and the record of the files that heddled wrote
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
    /// Unix socket for queries, such as those of `heddle status` [default: /run/heddle/heddled.sock;
    /// with --etcd-prefix=/a/b, /run/heddle/a-b.sock]
    #[arg(long, value_name = "FILE")]
    pub control_socket: Option<PathBuf>,

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
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", value_parser = healthz_ip)]
    pub healthz_ip: IpAddr,

    /// TCP port for /healthz, /readyz and /packets; 0 disables them
    #[arg(long, value_name = "PORT", default_value_t = 0, value_parser = healthz_port)]
    pub healthz_port: u16,

    /// IP address and TCP port for the status page (/), /status.json and /metrics; a port alone means
    /// 127.0.0.1 [default: disabled]
    #[arg(long, value_name = "[IP:]PORT", value_parser = listener)]
    pub status_address: Option<SocketAddr>,

    /// Log level: 0 info, 2 debug, 5 trace
    #[arg(long = "v", value_name = "LEVEL", default_value_t = 0, value_parser = level)]
    pub verbosity: u8,

    // Flags of flannel's logging library; accepted and ignored.
    #[arg(long, hide = true)]
    vmodule: Option<String>,

    #[arg(long = "log_backtrace_at", hide = true)]
    log_backtrace_at: Option<String>,

    // Of flannel up to 0.7.
    #[arg(long, hide = true, go_bool = None)]
    logtostderr: Option<bool>,

    #[arg(long, hide = true, go_bool = None)]
    alsologtostderr: Option<bool>,

    #[arg(long, hide = true)]
    stderrthreshold: Option<String>,

    #[arg(long = "log_dir", hide = true)]
    log_dir: Option<String>,
}

impl HealthFlags {
    /// Returns the names of given flags that have no effect.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        given([
            ("vmodule", self.vmodule.is_some()),
            ("log_backtrace_at", self.log_backtrace_at.is_some()),
            ("logtostderr", self.logtostderr.is_some()),
            ("alsologtostderr", self.alsologtostderr.is_some()),
            ("stderrthreshold", self.stderrthreshold.is_some()),
            ("log_dir", self.log_dir.is_some()),
        ])
    }
}

/// Returns the names of the flags that are given.
fn given<const N: usize>(flags: [(&'static str, bool); N]) -> Vec<&'static str> {
    flags.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

/// flannel's flags for Kubernetes.
#[derive(Clone, Debug, Args)]
pub struct KubernetesFlags {
    /// Read leases from the Kubernetes API; heddled refuses to start with it
    #[arg(long, go_bool = Some("false"))]
    pub kube_subnet_mgr: bool,

    #[arg(long, hide = true)]
    kube_api_url: Option<String>,

    #[arg(long, hide = true)]
    kubeconfig_file: Option<String>,

    #[arg(long, hide = true)]
    kube_annotation_prefix: Option<String>,

    #[arg(long, hide = true, go_bool = None)]
    set_node_network_unavailable: Option<bool>,

    #[arg(long, hide = true)]
    net_config_path: Option<String>,

    // Of flannel 0.21 and 0.22.
    #[arg(long = "use-multi-cluster-cidr", hide = true, go_bool = None)]
    use_multi_cluster_cidr: Option<bool>,
}

impl KubernetesFlags {
    /// Returns the names of given flags that have no effect.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        given([
            ("kube-api-url", self.kube_api_url.is_some()),
            ("kubeconfig-file", self.kubeconfig_file.is_some()),
            ("kube-annotation-prefix", self.kube_annotation_prefix.is_some()),
            ("set-node-network-unavailable", self.set_node_network_unavailable.is_some()),
            ("net-config-path", self.net_config_path.is_some()),
            ("use-multi-cluster-cidr", self.use_multi_cluster_cidr.is_some()),
        ])
    }
}
