//! Observes, changes and watches the links, addresses, routes, neighbours, FDB entries and sysctls
//! of one network namespace. The only crate that knows netlink.
//!
//! [`Kernel`] is the handle. It observes and changes objects in the terms of
//! [`heddle_core::object`]; a [`Scope`] says which of them this daemon owns:
//!
//! - A device is ours if it carries the scope's alias (`ip link set … alias`).
//! - Objects on a planned device are ours, unless the device is foreign. A foreign device lacks our
//!   alias and is either not a VXLAN device, or carries the alias of another Heddle daemon, which
//!   also starts with [`ALIAS_PREFIX`].
//! - A route is ours if it has [`ROUTE_PROTOCOL`] and leads into the overlay or through a planned
//!   device, but not through the device of another Heddle daemon. A route that looks like flannel's
//!   is ours too: protocol boot or static, into the overlay, through a planned device that is not
//!   foreign.
//!
//! A TUN device is created by the program that holds it open. This crate finds it and configures it
//! like any other.
//!
//! Messages are those of the crate `rtnetlink` and its `packet_route`. The socket below them is our
//! own: the crate's handle makes one channel round trip and one system call per message, and ten
//! thousand peers are thirty thousand messages. `socket` sends hundreds of messages at a time and
//! receives replies only for those that fail.
//!
//! | module | job |
//! | --- | --- |
//! | `links`, `addresses`, `routes`, `neighbours` | convert objects to netlink messages and back; pure functions |
//! | `nexthops` | decodes next-hop objects |
//! | `default_routes` | decides which default routes lead to other hosts |
//! | `sysctls` | the files below `/proc/sys/net` |
//! | `view` | decides which messages are in a scope, and whether the object is ours |
//! | `socket` | requests, dumps and batches of changes on one netlink socket |
//! | `worker` | the thread that owns the socket |
//! | `observe`, `apply`, `events` | the three operations of a [`Kernel`] |
//! | `facts` | the interfaces and default routes, from which the underlay is chosen |
//! | `link_counters` | traffic counters of devices |
//! | `ruleset` | notifies of changes to the nftables ruleset |
//! | `error` | errors that name the object and the kernel's reason |
//! | `survey` | the host's other devices, for `heddle doctor` |

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may run programs and wait"))]

mod addresses;
mod apply;
mod default_routes;
mod error;
mod events;
mod facts;
mod link_counters;
mod links;
mod neighbours;
mod nexthops;
mod observe;
#[cfg(test)]
mod round_trip;
mod routes;
mod ruleset;
mod socket;
mod survey;
mod sysctls;
mod view;
mod worker;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::address::{Family, LinkName};
use heddle_core::diff::{ObjectChange, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRouting};
use heddle_core::interface::Interface;
use heddle_core::object::{Route, Sysctl};
use ipnet::IpNet;

pub use heddle_core::interface::ALIAS_PREFIX;

pub use crate::error::{ApplyError, Failure, KernelError, Refusal};
pub use crate::events::{Event, Events, Watcher};
pub use crate::link_counters::link_counters;
pub use crate::ruleset::RulesetChanges;
pub use crate::survey::{HostLink, TrialError, VxlanPort, try_vxlan};

use crate::socket::Socket;
use crate::worker::Worker;

/// The routing protocol identifier of Heddle's routes (`rtm_protocol`, rtnetlink(7)). `ip route`
/// shows it as `proto 72`; it distinguishes Heddle's routes from all others.
///
/// Neither `linux/rtnetlink.h` nor iproute2's `rt_protos` uses the number. To see a name instead,
/// write the line `72 heddle` to a file `/etc/iproute2/rt_protos.d/heddle.conf`.
pub const ROUTE_PROTOCOL: u8 = 72;

/// Returns the alias (`ip link set … alias`) of the devices of one network's daemon.
pub fn alias(network: &str) -> String {
    format!("{ALIAS_PREFIX}{network}")
}

/// Time limit for every call to the kernel.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A handle to the network namespace of the thread that opened it. Clones share one netlink socket
/// and the thread that owns it, which runs calls one at a time. A call whose future is dropped
/// still runs to completion.
///
/// The methods need a Tokio runtime with its timer enabled.
#[derive(Clone, Debug)]
pub struct Kernel {
    worker: Worker,
}

impl Kernel {
    /// Opens a netlink socket. Neither opening it nor observing needs privileges.
    ///
    /// # Errors
    ///
    /// [`KernelError::Open`] if the socket or its thread cannot be created.
    pub fn open() -> Result<Self, KernelError> {
        Worker::start().map(|worker| Self { worker }).map_err(KernelError::Open)
    }

    /// Returns all network interfaces of the namespace, in the kernel's order, with their addresses
    /// as [`usability`](heddle_core::interface::usability) sorts them.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, KernelError> {
        self.read("the interfaces", observe::interfaces).await
    }

    /// Returns the default routes in the main table that lead to other hosts, best first: for each,
    /// the devices of its next hops. Empty if there is no default route.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn default_routes(&self, family: Family) -> Result<Vec<Vec<LinkName>>, KernelError> {
        self.read("the default routes", move |socket| observe::default_routes(socket, family)).await
    }

    /// Returns the devices by which packets from `source` to these destinations leave, with all next
    /// hops of their routes. Destinations without a route have none.
    ///
    /// # Errors
    ///
    /// If the devices cannot be read, or the kernel does not answer in time.
    pub async fn egress(
        &self,
        source: IpAddr,
        destinations: Vec<IpAddr>,
    ) -> Result<BTreeSet<LinkName>, KernelError> {
        self.read("the routes to addresses", move |socket| {
            observe::egress(socket, source, &destinations)
        })
        .await
    }

    /// Returns the output device and source address of packets to an address, as `ip route get`
    /// shows them.
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

    /// Returns the output device for each destination, for packets sent from `source`. `None` if
    /// there is no route, or if `source` is not an address of this host.
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

    /// Returns all devices, whoever created them, in the kernel's order.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn host_links(&self) -> Result<Vec<HostLink>, KernelError> {
        self.read("the devices", survey::host_links).await
    }

    /// Reads the objects within a scope, and the current values of the given sysctls; the values
    /// passed in do not matter. Leaves out sysctls that do not exist.
    ///
    /// Of routes, neighbours and FDB entries it reads only those that could conflict with a planned
    /// one: routes of the main table with the default metric, permanent neighbours, permanent FDB
    /// entries with a destination.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time, or if objects change faster than they can
    /// be read.
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

    /// Returns the host's own routes and addresses that overlap the scope's networks, as
    /// [`observe`](Self::observe) finds them.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn host_routing(&self, scope: &Scope) -> Result<HostRouting, KernelError> {
        let scope = scope.clone();
        self.read("the host's routes", move |socket| observe::host_routing(socket, scope)).await
    }

    /// Returns the routes of the main table with [`ROUTE_PROTOCOL`], whatever their destination,
    /// except those through the device of another Heddle daemon. `scope` supplies this daemon's
    /// alias.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn own_routes(&self, scope: &Scope) -> Result<Vec<Route>, KernelError> {
        let scope = scope.clone();
        self.read("Heddle's routes", move |socket| observe::own_routes(socket, scope)).await
    }

    /// Returns the IPv4 destinations of gateway-less routes in any table, with their devices.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer in time.
    pub async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError> {
        self.read("the connected routes", observe::connected_networks).await
    }

    /// Re-creates the kernel's connected routes for these IPv4 addresses, replacing any other route
    /// to the same network. Returns the addresses whose route was refused, with the reason.
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

    /// Applies changes in order, and returns those that failed. A failed change does not stop the
    /// others. Removing an object that is already gone succeeds.
    ///
    /// New devices get the scope's alias, new routes [`ROUTE_PROTOCOL`]. A foreign device with the
    /// name of a planned one is left alone: [`ApplyError::Foreign`], or
    /// [`ApplyError::AnotherDaemons`] if its alias is that of another Heddle daemon.
    ///
    /// When the MAC of a device changes, the kernel deletes the neighbours behind it, and reports
    /// that as events.
    pub async fn apply(&self, scope: &Scope, changes: Vec<ObjectChange>) -> Vec<Failure> {
        let scope = scope.clone();
        let changes: Arc<[ObjectChange]> = changes.into();
        let shared = changes.clone();
        let failures = self.worker.run(move |socket| apply::apply(socket, &scope, &shared)).await;
        let failures = failures
            .unwrap_or_else(|| (0..changes.len()).map(|i| (i, ApplyError::NoAnswer)).collect());
        failures
            .into_iter()
            .map(|(position, error)| Failure { change: changes[position].clone(), error })
            .collect()
    }

    /// Subscribes to the events within a scope, starting now. To miss nothing, subscribe first and
    /// [`observe`](Self::observe) afterwards.
    ///
    /// Changes made through [`apply`](Self::apply) cause events too, and look like anybody else's.
    ///
    /// # Errors
    ///
    /// If the socket or its thread cannot be created, or the kernel does not answer in time.
    pub async fn subscribe(&self, scope: &Scope) -> Result<Events, KernelError> {
        let scope = scope.clone();
        self.read("events", move |_| events::subscribe(scope).map_err(KernelError::Open)).await
    }

    /// Subscribes to changes of the nftables ruleset, starting now.
    ///
    /// # Errors
    ///
    /// If the socket cannot be opened, without `CAP_NET_ADMIN` or without nftables in the kernel.
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
