//! The host's own network at run time: follows the store's addresses, and restores what earlier
//! versions removed from the host.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::diff::{Change, Scope};
use heddle_core::host_network::{Claims, HostNetwork, Vital, harmful_leftovers, missing_connected};
use heddle_core::lease::LeaseKey;
use heddle_core::object::Object;
use heddle_core::subnet_env::{previous_networks, previous_subnets};
use heddle_kernel::KernelError;
use heddle_store::{LeaseStore, Reach};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::ports::Dataplane;

/// Interval at which the names of the store's endpoints are resolved.
const RESOLVE_PERIOD: Duration = Duration::from_secs(30);

/// Interval at which a node that waits for a lease checks the host network.
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// Starts to follow the store's addresses, until all receivers are dropped.
pub(crate) fn follow_store(
    store: Arc<dyn LeaseStore>,
    mut reach: Reach,
) -> watch::Receiver<BTreeSet<IpAddr>> {
    let (sender, receiver) = watch::channel(reach.addresses());
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(RESOLVE_PERIOD).await;
            reach.look(store.as_ref()).await;
            let found = reach.addresses();
            sender.send_if_modified(|known| {
                let is_news = *known != found;
                *known = found;
                is_news
            });
        }
    });
    receiver
}

/// Waits until the host's own network or the store's addresses differ from `host`. Returns the
/// reason as a sentence.
pub(crate) async fn changed(
    dataplane: &dyn Dataplane,
    scope: &Scope,
    host: &HostNetwork,
    store: &dyn LeaseStore,
    reach: &Reach,
) -> String {
    let mut reach = reach.clone();
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        reach.look(store).await;
        // The next attempt to join reports the error.
        let Ok(routing) = dataplane.host_routing(scope).await else { continue };
        let vital = Vital { store: reach.addresses(), own: host.vital().own.clone() };
        let found = HostNetwork::new(&Claims::of(scope), &routing, vital);
        if found.vital() != host.vital() {
            return "the lease store has other addresses inside Network now; choosing a subnet again"
                .to_owned();
        }
        if found != *host {
            return "the host has other networks now; choosing a subnet again".to_owned();
        }
    }
}

/// Removes routes of an earlier run that cut this node off from the store, or that take packets
/// from the host's connected networks.
///
/// Must run before the first read of the store, because a node that is cut off cannot learn that a
/// lease is gone. `remembered` is the text of the earlier run's subnet.env.
///
/// # Errors
///
/// If the kernel cannot be read.
pub(crate) async fn clear_leftovers(
    dataplane: &dyn Dataplane,
    alias: &str,
    store: &BTreeSet<IpAddr>,
    remembered: &str,
) -> Result<(), KernelError> {
    let scope = Scope { alias: alias.to_owned(), ..Scope::default() };
    let routes = dataplane.own_routes(&scope).await?;
    if routes.is_empty() {
        return Ok(());
    }
    let networks = IpNet::aggregate(&routes.iter().map(|it| it.destination).collect());
    let scope = Scope { networks, ..scope };
    let routing = dataplane.host_routing(&scope).await?;
    let former: Vec<_> = previous_networks(remembered).into_iter().collect();
    let own: Vec<_> = previous_subnets(remembered).iter().flat_map(LeaseKey::subnets).collect();
    let harmful = harmful_leftovers(&routes, &routing, store, &former, &own);
    if harmful.is_empty() {
        return Ok(());
    }
    let concerns = |network: IpNet| {
        let mut destinations = harmful.iter().map(|route| route.destination);
        destinations.any(|it| it.contains(&network) || network.contains(&it))
    };
    restore_connected(dataplane, &scope, concerns).await?;
    for route in &harmful {
        tracing::warn!(
            "kernel: route {} of an earlier run takes packets from the host's own network or from the lease store; removing it",
            route.destination
        );
    }
    let removals = harmful.into_iter().map(|route| Change::Remove(Object::Route(route)));
    for failure in dataplane.apply(&scope, removals.collect()).await {
        tracing::error!("{failure}");
    }
    Ok(())
}

/// Restores connected routes that an earlier version of Heddle replaced by its own, if they overlap
/// the scope's networks and `concerns` is true of them.
///
/// Runs only at the start: a connected route that is removed later was removed on purpose.
///
/// # Errors
///
/// If the kernel cannot be read.
pub(crate) async fn restore_connected(
    dataplane: &dyn Dataplane,
    scope: &Scope,
    concerns: impl Fn(IpNet) -> bool,
) -> Result<(), KernelError> {
    let routing = dataplane.host_routing(scope).await?;
    let routed = dataplane.connected_networks().await?;
    let is_v4 = |network: IpNet| network.addr().is_ipv4() && concerns(network);
    let missing = missing_connected(&routing, &routed, is_v4);
    if missing.is_empty() {
        return Ok(());
    }
    for address in &missing {
        tracing::warn!(
            "kernel: the connected route {} dev {} is missing, as earlier versions of heddled leave it; restoring it",
            address.network.trunc(),
            address.link
        );
    }
    for (address, refusal) in dataplane.restore_connected(missing).await? {
        tracing::error!(
            "kernel: cannot restore the connected route of {}: {refusal}",
            address.network
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
