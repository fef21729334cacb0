use std::collections::BTreeSet;
use std::time::Duration;

use heddle_core::diff::{ObjectChange, Scope};
use heddle_core::host_network::{HostAddress, HostRoute, missing_connected};
use heddle_core::object::{Metric, Object, Route, RouteAction};
use heddle_kernel::{ApplyError, Event};
use ipnet::IpNet;

use crate::host::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn lan(device: &str, network: &str) {
    ip(&format!("link add {device} type veth peer name {device}-far"));
    ip(&format!("link set {device}-far up"));
    ip(&format!("link set {device} up"));
    ip(&format!("address add {network} dev {device}"));
}

fn route(destination: &str) -> Object {
    let link = name("flannel.1");
    let gateway = Some(net(destination).network());
    let action = RouteAction::Forward { link, gateway, onlink: true };
    Object::Route(Route { destination: net(destination), metric: Metric::Default, action })
}

#[test]
fn created_route_replaces_nothing() {
    on_a_host(async |kernel| {
        reconcile(&kernel, &node_v4()).await;
        lan("lan0", "10.244.50.1/24");
        let before = ip("route show 10.244.50.0/24");
        let failures =
            kernel.apply(&scope(), vec![ObjectChange::Create(route("10.244.50.0/24"))]).await;
        assert!(matches!(failures[0].error, ApplyError::Appeared(_)), "{failures:?}");
        assert_eq!(
            failures[0].to_string(),
            "cannot put route 10.244.50.0/24 via 10.244.50.0 dev flannel.1 onlink: \
             route 10.244.50.0/24: another program added one meanwhile; comparing again"
        );
        assert_eq!(ip("route show 10.244.50.0/24"), before);
        // A put replaces the route, unlike a create.
        let failures =
            kernel.apply(&scope(), vec![ObjectChange::Put(route("10.244.50.0/24"))]).await;
        assert!(failures.is_empty(), "{failures:?}");
        assert!(ip("route show 10.244.50.0/24").contains("proto 72"));
    });
}

#[test]
fn host_routing_is_what_is_not_heddles() {
    on_a_host(async |kernel| {
        reconcile(&kernel, &[node_v4(), peer_v4()].concat()).await;
        lan("lan0", "10.244.50.1/24");
        ip("address add 10.244.51.1/24 dev lan0 noprefixroute");
        ip("route add 10.244.60.0/24 via 192.168.0.9 metric 500");
        ip("route add blackhole 10.244.61.0/24");
        ip("route add 10.0.0.0/8 via 192.168.0.9");
        ip("route add local 10.244.64.0/24 dev lo table main");
        ip("route add 10.244.65.0/24 via 192.168.0.9 tos 8");
        ip("route add 10.244.66.0/24 nexthop via 192.168.0.9 nexthop via 192.168.0.10");
        ip("-6 route add fd42:0:0:64::/64 from fd00:9::/64 dev eth0");
        // Not host routing: outside the scope, in another table, and through the planned device.
        ip("route add 10.99.0.0/16 via 192.168.0.9");
        ip("route add 10.244.62.0/24 via 192.168.0.9 table 7");
        ip("route add 10.244.63.0/24 dev flannel.1");
        let found = kernel.host_routing(&scope()).await.unwrap();
        let route = |destination: &str, link: Option<&str>, connected| HostRoute {
            destination: net(destination),
            link: link.map(name),
            connected,
            partial: false,
        };
        let expected = [
            route("0.0.0.0/0", Some("eth0"), false),
            route("10.0.0.0/8", Some("eth0"), false),
            route("10.244.50.0/24", Some("lan0"), true),
            route("10.244.60.0/24", Some("eth0"), false),
            route("10.244.61.0/24", None, false),
            route("10.244.64.0/24", Some("lo"), true),
            HostRoute { partial: true, ..route("10.244.65.0/24", Some("eth0"), false) },
            route("10.244.66.0/24", Some("eth0"), false),
            HostRoute { partial: true, ..route("fd42:0:0:64::/64", Some("eth0"), true) },
        ];
        assert_eq!(found.routes, BTreeSet::from(expected));
        let address = |network: &str, prefix_route| HostAddress {
            link: name("lan0"),
            network: net(network),
            up: true,
            prefix_route,
        };
        let expected = [address("10.244.50.1/24", true), address("10.244.51.1/24", false)];
        assert_eq!(found.addresses, BTreeSet::from(expected));
        assert_eq!(kernel.observe(&scope(), &[]).await.unwrap().host, found);
    });
}

#[test]
fn host_routes_that_come_and_go_are_events() {
    on_a_host(async |kernel| {
        let mut events = kernel.subscribe(&scope()).await.unwrap();
        let route = HostRoute {
            destination: net("10.244.60.0/24"),
            link: Some(name("eth0")),
            connected: false,
            partial: false,
        };
        for (command, there) in [("add", true), ("del", false)] {
            ip(&format!("route {command} 10.244.60.0/24 via 192.168.0.9"));
            let wanted = Event::HostRoute { route: route.clone(), there };
            let waiting = async { while !events.next_batch().await.contains(&wanted) {} };
            tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
        }
    });
}

#[test]
fn lost_connected_route_is_restored_as_kernel_made_it() {
    on_a_host(async |kernel| {
        lan("lan0", "10.244.50.1/24");
        lan("lan1", "10.244.51.1/24");
        lan("lan2", "10.244.52.1/24");
        let before = ip("route show proto kernel");
        // Three ways to lose the connected route: replaced, deleted, and moved to another table.
        ip("route replace 10.244.50.0/24 via 192.168.0.9 proto 72");
        ip("route del 10.244.51.0/24 dev lan1");
        ip("route del 10.244.52.0/24 dev lan2");
        ip("route add 10.244.52.0/24 dev lan2 table 7");
        let scope = Scope { networks: vec![net("10.244.0.0/16")], ..Scope::default() };
        let own = kernel.own_routes(&scope).await.unwrap();
        assert_eq!(
            own.iter().map(|route| route.destination).collect::<Vec<_>>(),
            [net("10.244.50.0/24")]
        );
        let routing = kernel.host_routing(&scope).await.unwrap();
        let routed = kernel.connected_networks().await.unwrap();
        let missing = missing_connected(&routing, &routed, |_| true);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(kernel.restore_connected(missing).await.unwrap().is_empty());
        ip("route add 10.244.52.0/24 dev lan2 proto kernel scope link src 10.244.52.1");
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ip("route show proto kernel")), sorted(&before));
        assert_eq!(ip("route show proto 72"), "");
    });
}
