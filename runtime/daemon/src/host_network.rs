//! The host's own network at run time: the store's addresses, and what earlier versions took from the host.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::diff::{Change, Scope};
use heddle_core::host_network::{Claims, HostNetwork, Vital, missing_connected};
use heddle_core::object::{Object, Route};
use heddle_kernel::{Kernel, KernelError};
use heddle_store::{LeaseStore, Reach};
use ipnet::IpNet;
use tokio::sync::watch;

/// The interval at which the names of the store's endpoints are resolved.
const RESOLVE_PERIOD: Duration = Duration::from_secs(30);

/// The interval at which a node that waits for a lease looks at its host.
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// Follows the store's addresses for as long as somebody listens.
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

/// Waits until the host's own network, or the way to the store, is another one than what `host` says. Returns that as a
/// sentence.
pub(crate) async fn changed(
    kernel: &Kernel,
    scope: &Scope,
    host: &HostNetwork,
    store: &dyn LeaseStore,
    reach: &Reach,
) -> String {
    let (mut reach, known) = (reach.clone(), reach.addresses());
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        reach.look(store).await;
        if reach.addresses() != known {
            return "the lease store has other addresses now; a subnet is chosen again".to_owned();
        }
        // Whatever keeps it from being read is told by the next attempt.
        let Ok(routing) = kernel.host_routing(scope).await else { continue };
        if HostNetwork::new(&Claims::of(scope), &routing, host.vital().clone()) != *host {
            return "the host has other networks now; a subnet is chosen again".to_owned();
        }
    }
}

/// Removes routes of an earlier run that keep this node from the store: those that the host would do better without.
///
/// To be called before the store is first read, because a node that is cut off cannot learn that a lease is gone.
///
/// # Errors
///
/// If the kernel cannot be read.
pub(crate) async fn clear_path_to_store(
    kernel: &Kernel,
    alias: &str,
    store: &BTreeSet<IpAddr>,
) -> Result<(), KernelError> {
    let scope = Scope { alias: alias.to_owned(), ..Scope::default() };
    let leads_to = |route: &Route| store.iter().any(|it| route.destination.contains(it));
    let routes: Vec<_> = kernel.own_routes(&scope).await?.into_iter().filter(leads_to).collect();
    if routes.is_empty() {
        return Ok(());
    }
    let networks = IpNet::aggregate(&routes.iter().map(|it| it.destination).collect());
    let scope = Scope { networks: networks.clone(), ..scope };
    let claims = Claims { overlay: networks, ..Claims::default() };
    let host = HostNetwork::new(&claims, &kernel.host_routing(&scope).await?, Vital::default());
    let blocks = |route: &Route| store.iter().any(|it| host.loses(*it, route.destination));
    let blocking: Vec<_> = routes.into_iter().filter(blocks).collect();
    let destinations: Vec<_> = blocking.iter().map(|route| route.destination).collect();
    let concerns = |network: IpNet| {
        destinations.iter().any(|it| it.contains(&network) || network.contains(it))
    };
    restore_connected(kernel, &scope, concerns).await?;
    for route in &blocking {
        tracing::warn!(
            "kernel: route {} of an earlier run leads packets for the lease store into the overlay; removing it",
            route.destination
        );
    }
    let removals = blocking.into_iter().map(|route| Change::Remove(Object::Route(route)));
    for failure in kernel.apply(&scope, removals.collect()).await {
        tracing::error!("{failure}");
    }
    Ok(())
}

/// Makes connected routes again that an earlier version of Heddle replaced by its own, as far as they meet the scope's
/// networks and `concerns` is true of them.
///
/// Done at the start alone: who removes a connected route later means it.
///
/// # Errors
///
/// If the kernel cannot be read.
pub(crate) async fn restore_connected(
    kernel: &Kernel,
    scope: &Scope,
    concerns: impl Fn(IpNet) -> bool,
) -> Result<(), KernelError> {
    let routing = kernel.host_routing(scope).await?;
    let routed = kernel.connected_networks().await?;
    let is_v4 = |network: IpNet| network.addr().is_ipv4() && concerns(network);
    let missing = missing_connected(&routing.addresses, &routed, is_v4);
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
    for (address, refusal) in kernel.restore_connected(missing).await? {
        tracing::error!(
            "kernel: cannot restore the connected route of {}: {refusal}",
            address.network
        );
    }
    Ok(())
}
