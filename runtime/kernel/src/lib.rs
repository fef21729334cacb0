//! Links, addresses, routes, neighbours, FDB entries and sysctls of one network namespace: observed, changed, and
//! watched. The only crate that knows netlink.
//!
//! [`Kernel`] is the handle. What it observes and changes is in the terms of [`heddle_core::object`]; what is this
//! daemon's business is said by a [`Scope`]:
//!
//! - a device is ours if it carries the scope's alias (`ip link set … alias`);
//! - what hangs on a planned device is ours, unless the device is foreign: not marked as ours, and either no VXLAN
//!   device or marked by another Heddle daemon, whose alias starts with [`ALIAS_PREFIX`] as well;
//! - a route is ours if it has [`ROUTE_PROTOCOL`] and leads into the overlay or through a planned device, but not
//!   through another Heddle daemon's; or if it is of the kind that flannel makes: protocol boot or static, into the
//!   overlay, through a planned device that is not foreign.
//!
//! A TUN device is made by the program that has it open. Here it is found, and configured like any other.
//!
//! Messages are those of the crate `rtnetlink` and its `packet_route`. The socket under them is our own: that crate's
//! handle makes one round trip of a channel and a syscall for each message, and ten thousand peers are thirty thousand
//! messages; `socket` sends hundreds at a time and hears only of those that fail.
//!
//! | module | job |
//! | --- | --- |
//! | `links`, `addresses`, `routes`, `neighbours` | objects to netlink messages and back: pure functions |
//! | `sysctls` | the files below `/proc/sys/net` |
//! | `view` | which messages lie in a scope, and whether what they show is ours |
//! | `socket` | questions, dumps and batches of changes on one netlink socket |
//! | `worker` | the thread that owns the socket |
//! | `observe`, `apply`, `events` | the three things that a [`Kernel`] does |
//! | `statistics` | what went through devices |
//! | `ruleset` | that traffic rules have changed, for those who look after them |
//! | `survey` | what there is besides, for `heddle doctor` |

mod addresses;
mod apply;
mod error;
mod events;
mod facts;
mod links;
mod neighbours;
mod observe;
#[cfg(test)]
mod round_trip;
mod routes;
mod ruleset;
mod socket;
mod statistics;
mod survey;
mod sysctls;
mod view;
mod worker;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::address::{Family, LinkName};
use heddle_core::diff::{Change, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRouting};
use heddle_core::interface::Interface;
use heddle_core::object::{Route, Sysctl};
use ipnet::IpNet;

pub use crate::error::{ApplyError, Failure, KernelError, Refusal};
pub use crate::events::{Event, Events, Watcher};
pub use crate::ruleset::RulesetChanges;
pub use crate::statistics::{Statistics, statistics};
pub use crate::survey::{HostLink, TrialError, VxlanPort, try_vxlan};

use crate::socket::Socket;
use crate::worker::Worker;

/// The routing protocol identifier of Heddle's routes (`rtm_protocol`, rtnetlink(7)): what `ip route` shows as
/// `proto 72`, and what tells them from everybody else's.
///
/// Neither `linux/rtnetlink.h` nor iproute2's `rt_protos` uses the number. To see a name instead, write the line
/// `72 heddle` to a file `/etc/iproute2/rt_protos.d/heddle.conf`.
pub const ROUTE_PROTOCOL: u8 = 72;

/// What the aliases of all Heddle daemons' devices start with. The name of the network follows, as in
/// `heddle /coreos.com/network`, and tells the daemons of one host apart.
pub const ALIAS_PREFIX: &str = "heddle ";

/// Returns the alias (`ip link set … alias`) of the devices of one network's daemon.
pub fn alias(network: &str) -> String {
    format!("{ALIAS_PREFIX}{network}")
}

/// How long any call waits for the kernel.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The network namespace of the thread that opened it. Clones share one netlink socket, and a thread that uses it:
/// calls are carried out one after the other. One that is dropped half way is still carried out.
///
/// The methods need a Tokio runtime with its timer enabled.
#[derive(Clone, Debug)]
pub struct Kernel {
    worker: Worker,
}

impl Kernel {
    /// Opens a netlink socket. It takes no privileges to open it and to observe.
    ///
    /// # Errors
    ///
    /// [`KernelError::Open`] if there is no socket or no thread to be had.
    pub fn open() -> Result<Self, KernelError> {
        Worker::start().map(|worker| Self { worker }).map_err(KernelError::Open)
    }

    /// All network interfaces of the namespace, in the kernel's order. Their addresses are those of global scope,
    /// without deprecated, duplicate and temporary ones.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, KernelError> {
        self.read("the interfaces", observe::interfaces).await
    }

    /// The devices of the default routes in the main table, the lowest metric first. Empty if there is none.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn default_routes(&self, family: Family) -> Result<Vec<LinkName>, KernelError> {
        self.read("the default routes", move |socket| observe::default_routes(socket, family)).await
    }

    /// The device that packets to an address leave through, and the source address that they get, as `ip route get`
    /// says.
    ///
    /// # Errors
    ///
    /// If there is no route, or the kernel does not answer in time.
    pub async fn route_to(
        &self,
        destination: IpAddr,
    ) -> Result<(LinkName, Option<IpAddr>), KernelError> {
        self.read("the route to an address", move |socket| observe::route_to(socket, destination))
            .await
    }

    /// The devices that packets leave through which this host sends from an address of its own, one for each
    /// destination. `None`: there is no route, or the address is not this host's.
    ///
    /// # Errors
    ///
    /// If the devices cannot be read, or the kernel does not answer in time.
    pub async fn ways(
        &self,
        source: IpAddr,
        destinations: Vec<IpAddr>,
    ) -> Result<Vec<Option<LinkName>>, KernelError> {
        self.read("the ways to addresses", move |socket| {
            survey::ways(socket, source, &destinations)
        })
        .await
    }

    /// All devices, whoever made them, in the kernel's order.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn host_links(&self) -> Result<Vec<HostLink>, KernelError> {
        self.read("the devices", survey::host_links).await
    }

    /// The part of the kernel within a scope, and of the settings those that are asked for, whatever the values
    /// given with them. A setting that does not exist is left out.
    ///
    /// Of routes, neighbours and FDB entries only those are observed that could stand in a planned one's way: routes
    /// of the main table with the default metric, permanent neighbours, permanent FDB entries with a destination.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time, or things change faster than they can be read.
    pub async fn observe(
        &self,
        scope: &Scope,
        sysctls: &[Sysctl],
    ) -> Result<Observed, KernelError> {
        let (scope, sysctls) = (scope.clone(), sysctls.to_vec());
        self.read("links, addresses, neighbours and routes", move |socket| {
            observe::observe(socket, scope, &sysctls)
        })
        .await
    }

    /// The host's own routes and addresses that meet the scope's networks, as [`observe`](Self::observe) finds them.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn host_routing(&self, scope: &Scope) -> Result<HostRouting, KernelError> {
        let scope = scope.clone();
        self.read("the host's routes", move |socket| observe::host_routing(socket, scope)).await
    }

    /// Routes of the main table with [`ROUTE_PROTOCOL`], wherever they lead, but those through the device of another Heddle
    /// daemon. `scope` says which alias is not another's.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn own_routes(&self, scope: &Scope) -> Result<Vec<Route>, KernelError> {
        let scope = scope.clone();
        self.read("Heddle's routes", move |socket| observe::own_routes(socket, scope)).await
    }

    /// The IPv4 networks that routes of any table lead to without a gateway, with the devices that they lead through.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError> {
        self.read("the connected routes", observe::connected_networks).await
    }

    /// Makes the kernel's own routes for these IPv4 addresses again, in place of any other to the same networks. Returns
    /// those that were refused, with the reason.
    ///
    /// # Errors
    ///
    /// If the devices cannot be read, or the kernel does not answer in time.
    pub async fn restore_connected(
        &self,
        addresses: Vec<HostAddress>,
    ) -> Result<Vec<(HostAddress, Refusal)>, KernelError> {
        self.read("the devices", move |socket| apply::restore_connected(socket, addresses)).await
    }

    /// Makes changes, in their order. Each that is not among the failures was made; one that fails does not keep the
    /// others from being made. To remove what is gone already is no failure.
    ///
    /// New devices get the scope's alias, new routes [`ROUTE_PROTOCOL`]. A foreign device in the way is not touched:
    /// [`ApplyError::Foreign`], or [`ApplyError::AnotherDaemons`] if its alias says so.
    ///
    /// When the MAC of a device changes, the kernel forgets the neighbours behind it. This is seen as events.
    pub async fn apply(&self, scope: &Scope, changes: Vec<Change>) -> Vec<Failure> {
        let scope = scope.clone();
        let changes: Arc<[Change]> = changes.into();
        let shared = changes.clone();
        let failures = self.worker.run(move |socket| apply::apply(socket, &scope, &shared)).await;
        let failures = failures
            .unwrap_or_else(|| (0..changes.len()).map(|i| (i, ApplyError::NoAnswer)).collect());
        failures
            .into_iter()
            .map(|(position, error)| Failure { change: changes[position].clone(), error })
            .collect()
    }

    /// What happens within a scope from now on. To miss nothing, subscribe first and [`observe`](Self::observe) then.
    ///
    /// Changes made through [`apply`](Self::apply) are seen as well, and look like anybody's.
    ///
    /// # Errors
    ///
    /// If there is no socket or no thread to be had, or the kernel does not answer in time.
    pub async fn subscribe(&self, scope: &Scope) -> Result<Events, KernelError> {
        let scope = scope.clone();
        self.read("events", move |_| events::subscribe(scope).map_err(KernelError::Open)).await
    }

    /// Changes of nftables' ruleset from now on.
    ///
    /// # Errors
    ///
    /// If there is no socket to be had, for want of `CAP_NET_ADMIN` or of nftables in the kernel.
    pub fn ruleset_changes(&self) -> Result<RulesetChanges, KernelError> {
        RulesetChanges::listen().map_err(KernelError::Open)
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Socket) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        self.worker.run(job).await.unwrap_or(Err(KernelError::NoAnswer { what }))
    }
}
