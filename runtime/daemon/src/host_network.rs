//! The host's own network at run time: the store's addresses, and what earlier versions took from the host.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::diff::{Change, Scope};
use heddle_core::host_network::{Claims, HostNetwork, Vital, missing_connected};
use heddle_core::object::{Object, Route};
use heddle_kernel::{Kernel, KernelError};
use heddle_store::LeaseStore;
use ipnet::IpNet;
use tokio::sync::watch;

/// Interval at which the names of the store's endpoints are resolved again.
const RESOLVE_PERIOD: Duration = Duration::from_secs(30);

/// Path of the file that lists the name servers (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The addresses that lead to the store: its own, and those of the name servers that its name is asked of.
pub(crate) async fn store_addresses(store: &dyn LeaseStore) -> BTreeSet<IpAddr> {
    let mut addresses = store.addresses().await;
    if store.is_named() {
        addresses.extend(name_servers(&fs::read_to_string(RESOLV_CONF).unwrap_or_default()));
    }
    addresses
}

/// The name servers in a resolv.conf(5).
fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        // `fe80::1%eth0` is on a link, which the overlay never has addresses of.
        words.next().filter(|_| is_server)?.parse().ok()
    })
}

/// Follows the store's addresses for as long as somebody listens. An address whose name cannot be resolved any more stays:
/// that may be for want of the way to the name server.
pub(crate) fn follow_store(
    store: Arc<dyn LeaseStore>,
    known: BTreeSet<IpAddr>,
) -> watch::Receiver<BTreeSet<IpAddr>> {
    let (sender, receiver) = watch::channel(known);
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(RESOLVE_PERIOD).await;
            let found = store_addresses(store.as_ref()).await;
            sender.send_if_modified(|known| {
                let is_news = !found.is_empty() && *known != found;
                if is_news {
                    *known = found;
                }
                is_news
            });
        }
    });
    receiver
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
            "kernel: route {} of an earlier run leads packets for the lease store into the overlay; removed",
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
            "kernel: the connected route {} dev {} was missing, as earlier versions of heddled leave it; restored",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text = "# nameserver 192.0.2.1\nsearch example\nnameserver 10.0.0.53\n\
                    nameserver  fd00::53 \nnameserver\nnameserver fe80::1%eth0\noptions ndots:1\n";
        let found: Vec<_> = name_servers(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.0.0.53", "fd00::53"]);
    }
}
