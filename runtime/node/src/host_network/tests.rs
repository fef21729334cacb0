use heddle_core::host_network::{HostAddress, HostRoute, HostRouting};
use tokio::time::Instant;

use crate::testing::{ScriptedKernel, ScriptedStore, name, net, route};

use super::*;

/// The text that an earlier run in 10.244.0.0/16 with 10.244.1.0/24 left.
const REMEMBERED: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n";

fn scope() -> Scope {
    Scope { networks: vec![net("10.244.0.0/16")], ..Scope::default() }
}

fn connected(destination: &str, link: &str) -> HostRoute {
    let (destination, link) = (net(destination), Some(name(link)));
    HostRoute { destination, link, connected: true, partial: false }
}

fn address(network: &str, link: &str) -> HostAddress {
    HostAddress { link: name(link), network: net(network), up: true, prefix_route: true }
}

fn store(hosts: &[&str]) -> Arc<ScriptedStore> {
    let store = ScriptedStore::default();
    *store.hosts.lock().unwrap() = hosts.iter().map(ToString::to_string).collect();
    Arc::new(store)
}

async fn clear(kernel: &ScriptedKernel, store: &[IpAddr]) {
    let store = store.iter().copied().collect();
    clear_leftovers(kernel, "heddle /test", &store, REMEMBERED).await.unwrap();
}

#[tokio::test]
async fn node_without_routes_clears_nothing() {
    let kernel = ScriptedKernel::default();
    clear(&kernel, &[[10, 244, 7, 5].into()]).await;
    assert_eq!(kernel.removed(), []);
}

#[tokio::test]
async fn route_over_an_address_of_the_store_is_removed() {
    let kernel = ScriptedKernel::default();
    let (harmful, harmless) = (route("10.244.7.0/24", "eth0"), route("10.244.8.0/24", "eth0"));
    kernel.with(|script| script.own_routes = vec![harmful, harmless]);
    clear(&kernel, &[[10, 244, 7, 5].into()]).await;
    assert_eq!(kernel.removed(), [Object::Route(harmful)]);
}

#[tokio::test]
async fn route_inside_a_connected_network_is_removed() {
    let kernel = ScriptedKernel::default();
    let harmful = route("10.244.7.0/24", "flannel.1");
    kernel.with(|script| {
        script.own_routes = vec![harmful];
        script.routing.routes.insert(connected("10.244.6.0/23", "lan0"));
    });
    clear(&kernel, &[]).await;
    assert_eq!(kernel.removed(), [Object::Route(harmful)]);
}

#[tokio::test]
async fn route_inside_a_network_around_the_own_subnet_stays() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| {
        script.own_routes = vec![route("10.244.7.0/24", "flannel.1")];
        script.routing.routes.insert(connected("10.244.0.0/20", "lan0"));
    });
    clear(&kernel, &[]).await;
    assert_eq!(kernel.removed(), []);
}

#[tokio::test]
async fn refused_removal_of_a_leftover_is_no_error() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| {
        script.own_routes = vec![route("10.244.7.0/24", "eth0")];
        script.refuses = true;
    });
    clear(&kernel, &[[10, 244, 7, 5].into()]).await;
    assert_eq!(kernel.removed().len(), 1);
}

#[tokio::test]
async fn connected_route_comes_back_before_the_leftover_goes() {
    let kernel = ScriptedKernel::default();
    let lan = address("10.244.7.1/24", "lan0");
    kernel.with(|script| {
        script.own_routes = vec![route("10.244.7.0/24", "eth0")];
        script.routing.addresses = [lan.clone(), address("10.244.99.1/24", "lan1")].into();
    });
    clear(&kernel, &[[10, 244, 7, 5].into()]).await;
    // Only the networks that the harmful route concerns.
    assert_eq!(kernel.with(|script| script.restored.clone()), [lan]);
    assert_eq!(kernel.removed().len(), 1);
}

#[tokio::test]
async fn unreadable_kernel_is_an_error_and_changes_nothing() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| script.unreadable = true);
    let cleared = clear_leftovers(&kernel, "heddle /test", &BTreeSet::new(), REMEMBERED).await;
    assert!(cleared.unwrap_err().to_string().starts_with("cannot read the routes: "));
    assert_eq!(kernel.removed(), []);
}

#[tokio::test]
async fn missing_connected_route_is_restored() {
    let kernel = ScriptedKernel::default();
    let lan = address("10.244.7.1/24", "lan0");
    kernel.with(|script| script.routing.addresses = [lan.clone()].into());
    restore_connected(&kernel, &scope(), |_| true).await.unwrap();
    assert_eq!(kernel.with(|script| script.restored.clone()), [lan]);
}

#[tokio::test]
async fn connected_route_that_is_there_is_left_alone() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| {
        script.routing.addresses = [address("10.244.7.1/24", "lan0")].into();
        // In any routing table.
        script.connected = [(net("10.244.7.0/24"), name("lan0"))].into();
    });
    restore_connected(&kernel, &scope(), |_| true).await.unwrap();
    assert_eq!(kernel.with(|script| script.restored.clone()), []);
}

#[tokio::test]
async fn connected_route_of_a_device_that_is_down_is_left_alone() {
    let kernel = ScriptedKernel::default();
    let down = HostAddress { up: false, ..address("10.244.7.1/24", "lan0") };
    kernel.with(|script| script.routing.addresses = [down].into());
    restore_connected(&kernel, &scope(), |_| true).await.unwrap();
    assert_eq!(kernel.with(|script| script.restored.clone()), []);
}

#[tokio::test]
async fn connected_routes_of_ipv6_are_left_to_the_kernel() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| script.routing.addresses = [address("fd00:7::1/64", "lan0")].into());
    restore_connected(&kernel, &scope(), |_| true).await.unwrap();
    assert_eq!(kernel.with(|script| script.restored.clone()), []);
}

#[tokio::test]
async fn refused_restoration_is_no_error() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| {
        script.routing.addresses = [address("10.244.7.1/24", "lan0")].into();
        script.refuses = true;
    });
    restore_connected(&kernel, &scope(), |_| true).await.unwrap();
    assert_eq!(kernel.with(|script| script.restored.len()), 1);
}

/// Waits for a change of a host without networks whose store is at 10.244.7.5.
async fn wait(kernel: &ScriptedKernel, store: &ScriptedStore) -> String {
    let mut reach = Reach::default();
    reach.look(store).await;
    let vital = Vital { store: reach.addresses(), own: BTreeSet::new() };
    let host = HostNetwork::new(&Claims::of(&scope()), &HostRouting::default(), vital);
    changed(kernel, &scope(), &host, store, &reach).await
}

#[tokio::test(start_paused = true)]
async fn unchanged_host_ends_no_wait() {
    let (kernel, store) = (ScriptedKernel::default(), store(&["10.244.7.5"]));
    let waited = tokio::time::timeout(LOOK_PERIOD * 100, wait(&kernel, &store)).await;
    assert!(waited.is_err(), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn new_network_of_the_host_ends_the_wait() {
    let (kernel, store) = (ScriptedKernel::default(), store(&["10.244.7.5"]));
    kernel.with(|script| script.routing.routes.insert(connected("10.244.9.0/24", "lan0")));
    let begun = Instant::now();
    let reason = wait(&kernel, &store).await;
    assert_eq!(reason, "the host has other networks now; choosing a subnet again");
    assert_eq!(begun.elapsed(), LOOK_PERIOD);
}

#[tokio::test(start_paused = true)]
async fn new_address_of_the_store_ends_the_wait() {
    let (kernel, store) = (ScriptedKernel::default(), store(&["10.244.7.5"]));
    let change = async {
        tokio::time::sleep(LOOK_PERIOD / 2).await;
        *store.hosts.lock().unwrap() = vec!["10.244.8.5".to_owned()];
    };
    let (reason, ()) = tokio::join!(wait(&kernel, &store), change);
    assert!(reason.starts_with("the lease store has other addresses inside Network"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn unreadable_kernel_ends_no_wait() {
    let (kernel, store) = (ScriptedKernel::default(), store(&["10.244.7.5"]));
    kernel.with(|script| script.unreadable = true);
    let waited = tokio::time::timeout(LOOK_PERIOD * 100, wait(&kernel, &store)).await;
    assert!(waited.is_err(), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn addresses_of_the_store_are_followed() {
    let store = store(&["192.0.2.9"]);
    let mut addresses = follow_store(store.clone(), Reach::default());
    assert!(addresses.borrow_and_update().is_empty());
    let begun = Instant::now();
    addresses.changed().await.unwrap();
    assert_eq!(begun.elapsed(), RESOLVE_PERIOD);
    assert_eq!(*addresses.borrow_and_update(), [IpAddr::from([192, 0, 2, 9])].into());
    // What is known already is no news.
    let silent = tokio::time::timeout(RESOLVE_PERIOD * 10, addresses.changed()).await;
    assert!(silent.is_err());
    *store.hosts.lock().unwrap() = vec!["192.0.2.10".to_owned()];
    addresses.changed().await.unwrap();
    // An address that led to the store is kept for a while.
    assert_eq!(addresses.borrow().len(), 2);
}
