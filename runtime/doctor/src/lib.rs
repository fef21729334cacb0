//! `heddle doctor`: examines a host as the daemon would, and reports what would keep the overlay
//! from working.
//!
//! ```text
//! flags ──► outlook (what would the daemon do?) ──► checks ──► report
//!             facts (what is there?)            ──┘
//! ```
//!
//! | module | job |
//! | --- | --- |
//! | `outlook` | sends the daemon's queries to the store, the plugin and the kernel, without acting on them |
//! | `facts` | reads other facts of the host: sockets, settings, files, devices |
//! | `checks` | from facts to findings: pure functions |
//! | [`report`](Report) | findings and skipped checks |
//!
//! A check finds what keeps packets from arriving, now or soon, and nothing that is a matter of
//! taste: a healthy host has no findings, neither before the daemon runs nor while it does.

#![forbid(unsafe_code)]

mod checks;
mod facts;
mod outlook;
mod report;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use heddle_control::Status;
use heddle_core::address::LinkName;
use heddle_core::config::NetworkConfig;
use heddle_core::diff::Scope;
use heddle_core::host_network::{Claims, HostNetwork, HostRouting, Vital};
use heddle_core::interface::{Facts, Interface};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::Underlay;
use heddle_firewall::{datagram_verdicts, forward_verdicts};
use heddle_flags::Flags;
use heddle_kernel::{HostLink, Kernel, KernelError, alias, try_vxlan};
use heddle_plugin::NodePlan;
use ipnet::IpNet;
use rustix::process::geteuid;
use tokio::task::spawn_blocking;

use crate::outlook::Outlook;
pub use crate::report::{Finding, Report, Severity, Skipped};

use crate::checks::firewall::Path;
use crate::checks::forward::Answering;
use crate::checks::outlook::Commands;
use crate::checks::overlap::Apart;
use crate::facts::settings::{self, Setting};
use crate::facts::unit::{self, Daemon};
use crate::facts::{credentials, docker, files, offload, sockets, tun};

/// Examines this host, with the flags of its daemon. `unit` is the name of the daemon's systemd
/// unit.
///
/// Takes about ten seconds at most if nothing answers. Changes nothing, except that the kernel may
/// load modules: testing for those that the backend needs loads them.
///
/// Without root, checks that need root are reported as skipped.
pub async fn examine(flags: &Flags, unit: &str) -> Report {
    let mut report = Report::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let daemon = unit::daemon_of(flags).await;
    let loaded = unit::unit(unit).await;
    let instance = unit::instance(unit, flags);
    let missing =
        instance.and_then(|it| checks::daemon::check_instance(&it, &daemon, loaded.as_ref()));
    if missing.is_some() {
        report.found(missing);
        return report;
    }
    report.found(checks::credentials::check(&credentials::read(&flags.lease), now));
    if matches!(daemon, Daemon::Answers(_)) {
        match files::differing(&flags.state_directory()) {
            Ok(differing) => report.found(checks::files::check_written(&differing)),
            Err(error) => report.skip("files as the daemon wrote them", error),
        }
    }
    match Host::read(flags).await {
        Ok(host) => examine_host(flags, &host, &daemon, &mut report).await,
        Err(error) => report.skip("the host's network", error),
    }
    // flanneld writes the same files, and may have taken the node over.
    let written = match sockets::runs("flanneld") {
        true => Vec::new(),
        false => files::written(&flags.state_directory()),
    };
    report.found(checks::daemon::check(&daemon, loaded.as_ref(), &written));
    if let Daemon::Answers(status) = &daemon {
        report.found(checks::peers::check(status));
    }
    if let Daemon::Unknown(reason) = daemon {
        report.skip("the daemon", reason);
    }
    report.sorted()
}

/// Network state of this host.
struct Host {
    kernel: Kernel,
    facts: Facts,
    links: Vec<HostLink>,
    /// All routes and addresses, except those of this network's daemon.
    routing: HostRouting,
}

impl Host {
    async fn read(flags: &Flags) -> Result<Self, KernelError> {
        let kernel = Kernel::open()?;
        let everything = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let everything = everything.map(|address| IpNet::new_assert(address, 0));
        let alias = alias(&flags.lease.network_label());
        let scope = Scope { networks: everything.into(), alias, ..Scope::default() };
        Ok(Self {
            routing: kernel.host_routing(&scope).await?,
            facts: kernel.facts(flags.interface.selection().can_reach).await?,
            links: kernel.host_links().await?,
            kernel,
        })
    }
}

/// Returns the part of the host's routing that overlaps the overlay, without this node's subnets.
fn host_network(host: &Host, config: &NetworkConfig, subnets: Option<LeaseKey>) -> HostNetwork {
    let own = subnets.iter().flat_map(LeaseKey::subnets).collect();
    let claims = Claims { own, ..outlook::claims(config) };
    HostNetwork::new(&claims, &host.routing, Vital::default())
}

/// Determines what the daemon would do, and checks what it needs for that.
async fn examine_host(flags: &Flags, host: &Host, daemon: &Daemon, report: &mut Report) {
    let outlook = outlook::look(flags, daemon.node_id(flags), &host.facts, &host.routing).await;
    let commands = Commands::new(flags);
    let member = matches!(daemon, Daemon::Answers(status) if status.lease.is_some());
    let problems = outlook.problems.iter();
    report.found(problems.filter_map(|it| checks::outlook::check(it, &commands, member)));
    let warnings = outlook.config_warnings.iter();
    report.found(warnings.map(|it| checks::outlook::config_warning(it, &commands)));
    let unwritable: Vec<_> = outlook.files.iter().filter_map(|f| files::unwritable(f)).collect();
    report.found(checks::files::check(&unwritable));
    report
        .found(checks::files::check_shared(&outlook.files, &files_of_others(flags, daemon).await));
    let Some(config) = &outlook.config else {
        report.skip("ports, devices, routes and rules", "the network config is unknown");
        return;
    };
    report.found(checks::daemon::check_config(daemon));
    let alias = alias(&flags.lease.network_label());
    let planned = outlook.plan.as_ref().map(NodePlan::links).unwrap_or_default();
    let networks: Vec<_> = config.networks.iter().map(|overlay| overlay.network).collect();
    let (interfaces, links) = (&host.facts.interfaces, &host.links);
    let instruction = docker::instruction(&outlook.files);
    let instruction = instruction.as_deref();
    report.found(checks::docker_bridge::check(interfaces, config, outlook.subnets, instruction));
    report.found(checks::forwarding::check(&forwarding(config, interfaces, &planned)));
    let host_network = host_network(host, config, outlook.subnets);
    let apart = Apart {
        links: &planned,
        underlay: outlook.underlay.as_ref().map(|underlay| underlay.link),
        peers: &outlook.peers,
    };
    report.found(checks::overlap::check(&host_network, interfaces, &apart));
    if geteuid().is_root() {
        examine_rules(flags, networks, daemon, report).await;
    } else {
        report.skip("forwarding rules, owners of UDP ports, kernel support", "needs root");
    }
    let (Some(plan), Some(underlay)) = (&outlook.plan, &outlook.underlay) else {
        report.skip("ports, devices and MTUs", "this node has no plan");
        return;
    };
    report.found(reverse_path(&host.kernel, underlay, &outlook.peers).await);
    report.found(checks::mtu::check(plan, underlay, interfaces, links, outlook.subnets));
    report.found(checks::device_name::check(plan, links, &alias));
    report.found(checksum_offload(plan).await);
    if geteuid().is_root() {
        let sockets: Vec<_> =
            checks::udp_port::ports(plan).into_iter().flat_map(sockets::on_port).collect();
        report.found(checks::udp_port::check(plan, links, &sockets, &alias));
        report.found(kernel_support(plan, links).await);
        examine_datagrams(host, &outlook, daemon, report).await;
    }
}

/// Evaluates the host's packet filters for the datagrams between this node and its peers.
async fn examine_datagrams(host: &Host, outlook: &Outlook, daemon: &Daemon, report: &mut Report) {
    let (Some(plan), Some(underlay)) = (&outlook.plan, &outlook.underlay) else { return };
    let master = host.links.iter().find(|link| link.name == underlay.link);
    let path = Path { underlay: underlay.link, master: master.and_then(|link| link.master) };
    let mut datagrams = Vec::new();
    for socket in checks::firewall::sockets(plan, &outlook.peer_plans, &outlook.peers) {
        let ways = host.kernel.ways(socket.own, socket.peers.clone()).await.unwrap_or_default();
        datagrams.extend(checks::firewall::datagrams(&socket, path, &ways));
    }
    let asked = datagrams.clone();
    let verdicts = spawn_blocking(move || datagram_verdicts(&asked)).await;
    match verdicts.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
        Ok(verdicts) => {
            let status = match daemon {
                Daemon::Answers(status) => Some(status.as_ref()),
                _ => None,
            };
            report.found(checks::firewall::check(&datagrams, &verdicts, status));
        }
        Err(error) => report.skip("rules on the backend's UDP port", error),
    }
}

/// Returns the networks of the other daemons on this host, and the files that they write.
async fn files_of_others(flags: &Flags, daemon: &Daemon) -> Vec<(String, Vec<PathBuf>)> {
    let others = unit::others(flags, daemon).await.into_iter();
    let files = |status: Status| {
        let files = status.emitters.into_iter().flat_map(|emitter| emitter.files);
        (status.network, files.collect())
    };
    others.map(files).collect()
}

async fn examine_rules(flags: &Flags, networks: Vec<IpNet>, daemon: &Daemon, report: &mut Report) {
    let verdicts = spawn_blocking(move || forward_verdicts(&networks)).await;
    match verdicts.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
        Ok(refusals) => {
            let answering = Answering {
                wanted: flags.rules.iptables_forward_rules,
                running: *daemon != Daemon::Absent,
            };
            report.found(checks::forward::check(&refusals, answering));
        }
        Err(error) => report.skip("forwarding rules", error),
    }
}

/// Returns the sysctls that must be on. IPv4 also has one per device, of which that of the incoming
/// device counts; for IPv6 it is the one for all devices.
fn forwarding(
    config: &NetworkConfig,
    interfaces: &[Interface],
    planned: &[LinkName],
) -> Vec<Setting> {
    let mut wanted = Vec::new();
    if config.networks.v4.is_some() {
        wanted.extend(settings::read("net/ipv4/ip_forward"));
        let all_off = wanted.iter().any(|setting| setting.value == "0");
        let there = interfaces.iter().map(|interface| interface.name);
        let there = there.filter(|name| !all_off && planned.contains(name));
        wanted.extend(there.filter_map(|name| settings::of_link(name, "forwarding")));
    }
    if config.networks.v6.is_some() {
        wanted.extend(settings::read("net/ipv6/conf/all/forwarding"));
    }
    wanted
}

async fn reverse_path(kernel: &Kernel, underlay: &Underlay, peers: &[Lease]) -> Option<Finding> {
    let settings: Vec<_> = ["all", underlay.link.as_str()]
        .iter()
        .filter_map(|link| settings::read(&format!("net/ipv4/conf/{link}/rp_filter")))
        .collect();
    // Behind NAT, no packet can be sent from the public address.
    let own = underlay.addresses.iter().map(IpNet::addr).find(IpAddr::is_ipv4)?;
    let public = |peer: &Lease| peer.families.v4.as_ref().map(|part| part.public_address);
    if !checks::reverse_path::is_strict(&settings) {
        return None;
    }
    let addresses: Vec<_> = peers.iter().filter_map(public).collect();
    let ways = kernel.ways(own, addresses.clone()).await.ok()?;
    let ways: Vec<_> = addresses.into_iter().zip(ways).collect();
    checks::reverse_path::check(&settings, underlay.link, &ways)
}

/// Tests only the support that the plan needs, and that no existing device proves already.
async fn kernel_support(plan: &NodePlan, links: &[HostLink]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let there = links.iter().any(|link| link.kind == "vxlan");
    if checks::planned_vxlans(plan).next().is_some() && !there {
        // A trial that panics is inconclusive.
        let tried = spawn_blocking(try_vxlan).await.unwrap_or(Ok(()));
        findings.extend(checks::kernel_support::vxlan(&tried));
    }
    if plan.tunnel.is_some() {
        findings.extend(checks::kernel_support::tun(&tun::open()));
    }
    findings
}

async fn checksum_offload(plan: &NodePlan) -> Option<Finding> {
    let (device, _) = checks::planned_vxlans(plan).next()?;
    let release = offload::kernel_release();
    if !checks::checksum_offload::is_affected(&release) {
        return None;
    }
    let deferred = offload::checksums_deferred(device.name).await;
    let translates = sockets::runs("kube-proxy");
    checks::checksum_offload::check(&release, translates, device.name, deferred)
}
