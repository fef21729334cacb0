use heddle_core::diff::ObjectChange;
use heddle_core::object::{Metric, Neighbour, Object, Route, RouteAction};
use heddle_kernel::ROUTE_PROTOCOL;
use serde_json::json;

use crate::host::*;

#[test]
fn ipv4_peer_is_route_neighbour_and_fdb_entry() {
    on_a_host(async |kernel| {
        let mut plan = node_v4();
        plan.extend(peer_v4());
        reconcile(&kernel, &plan).await;
        assert_eq!(
            ip("route show dev flannel.1").trim_end(),
            format!("10.244.36.0/24 via 10.244.36.0 proto {ROUTE_PROTOCOL} onlink")
        );
        assert_eq!(
            ip("neighbour show dev flannel.1").trim_end(),
            "10.244.36.0 lladdr 3a:8b:71:f2:2e:de PERMANENT"
        );
        assert_eq!(
            run("bridge", "fdb show dev flannel.1").trim_end(),
            "3a:8b:71:f2:2e:de dst 192.168.0.99 self permanent"
        );
    });
}

#[test]
fn ipv6_peer_is_route_neighbour_and_fdb_entry() {
    on_a_host(async |kernel| {
        let mut plan = node_v6();
        plan.extend(peer_v6());
        reconcile(&kernel, &plan).await;
        let route = &json("ip", "-6 route show fd42:0:0:24::/64")[0];
        assert_eq!(route["gateway"], "fd42:0:0:24::");
        assert_eq!(route["dev"], "flannel-v6.1");
        assert_eq!(route["protocol"], ROUTE_PROTOCOL.to_string());
        assert_eq!(route["metric"], 1024);
        assert_eq!(route["flags"], json!(["onlink"]));
        assert_eq!(
            ip("-6 neighbour show dev flannel-v6.1 nud permanent").trim_end(),
            "fd42:0:0:24:: lladdr 3a:8b:71:f2:2e:df PERMANENT"
        );
        assert_eq!(
            run("bridge", "fdb show dev flannel-v6.1").trim_end(),
            "3a:8b:71:f2:2e:df dst 2001:db8::99 self permanent"
        );
    });
}

#[test]
fn both_families_are_added_and_removed_together() {
    on_a_host(async |kernel| {
        let nodes = [node_v4(), node_v6()].concat();
        let all = [nodes.clone(), peer_v4(), peer_v6()].concat();
        reconcile(&kernel, &all).await;
        reconcile(&kernel, &nodes).await;
        assert_eq!(ip("route show dev flannel.1"), "");
        assert_eq!(ip("-6 route show fd42:0:0:24::/64"), "");
        assert_eq!(run("bridge", "fdb show dev flannel-v6.1"), "");
        assert_eq!(ip("neighbour show dev flannel.1"), "");
        reconcile(&kernel, &[]).await;
        assert_eq!(ip("link show type vxlan"), "");
    });
}

#[test]
fn moved_peer_is_changed_in_place() {
    on_a_host(async |kernel| {
        let moved = peer("flannel.1", "10.244.36.0/24", "3a:8b:71:f2:2e:de", "192.168.0.100");
        reconcile(&kernel, &[node_v4(), peer_v4()].concat()).await;
        reconcile(&kernel, &[node_v4(), moved].concat()).await;
        assert_eq!(
            run("bridge", "fdb show dev flannel.1").trim_end(),
            "3a:8b:71:f2:2e:de dst 192.168.0.100 self permanent"
        );
        let renewed = peer("flannel.1", "10.244.36.0/24", "3a:8b:71:f2:2e:aa", "192.168.0.100");
        reconcile(&kernel, &[node_v4(), renewed].concat()).await;
        let direct = Object::Route(Route {
            metric: Metric::Default,
            destination: "10.244.36.0/24".parse().unwrap(),
            action: RouteAction::Forward {
                link: name("eth0"),
                gateway: Some("192.168.0.100".parse().unwrap()),
                onlink: false,
            },
        });
        let mut plan = node_v4();
        plan.push(direct);
        reconcile(&kernel, &plan).await;
        assert_eq!(
            ip("route show 10.244.36.0/24").trim_end(),
            format!("10.244.36.0/24 via 192.168.0.100 dev eth0 proto {ROUTE_PROTOCOL}")
        );
    });
}

#[test]
fn foreign_route_before_ours_is_overridden() {
    on_a_host(async |kernel| {
        let plan = [node_v4(), peer_v4(), node_v6(), peer_v6()].concat();
        reconcile(&kernel, &plan).await;
        let shown = || ip("route show 10.244.36.0/24") + &ip("-6 route show fd42:0:0:24::/64");
        let before = shown();
        for (how, host) in [("prepend", 1), ("append", 2), ("prepend", 3)] {
            ip(&format!("route {how} 10.244.36.0/24 via 192.168.0.{host} dev eth0"));
            ip(&format!("-6 route {how} fd42:0:0:24::/64 via 2001:db8::{host} dev eth0"));
            reconcile(&kernel, &plan).await;
            let way = ip("route get 10.244.36.1") + &ip("route get fd42:0:0:24::1");
            assert_eq!(way.matches(" dev flannel").count(), 2, "{how}: {way}{}", shown());
        }
        // The other route did not conflict with ours.
        ip("route delete 10.244.36.0/24 via 192.168.0.2 dev eth0");
        assert_eq!(shown(), before);
    });
}

#[test]
fn device_and_blackhole_routes_are_applied() {
    on_a_host(async |kernel| {
        let route = |destination: &str, action| {
            Object::Route(Route {
                metric: Metric::Default,
                destination: destination.parse().unwrap(),
                action,
            })
        };
        let through = RouteAction::Forward { link: name("eth0"), gateway: None, onlink: false };
        let plan = [
            route("10.244.0.0/16", through),
            route("10.244.8.0/24", RouteAction::Blackhole),
            route("fd42::/48", through),
            route("fd42:0:0:8::/64", RouteAction::Blackhole),
        ];
        reconcile(&kernel, &plan).await;
        let shown = ip("route show proto 72");
        assert_eq!(
            shown.lines().map(str::trim_end).collect::<Vec<_>>(),
            ["10.244.0.0/16 dev eth0 scope link", "blackhole 10.244.8.0/24"]
        );
        reconcile(&kernel, &[]).await;
        assert_eq!(ip("route show proto 72") + &ip("-6 route show proto 72"), "");
    });
}

#[test]
fn last_resort_route_coexists_with_bridge_route() {
    on_a_host(async |kernel| {
        ip("link add docker0 type bridge");
        ip("address add 10.244.8.1/24 dev docker0");
        ip("address add fd42:0:0:8::1/64 dev docker0 nodad");
        ip("link set docker0 up");
        ip("route add blackhole 10.244.0.0/16 metric 4096");
        let own = ["10.244.8.0/24", "fd42:0:0:8::/64"].map(|own| own.parse().unwrap());
        let plan = own.map(|own| Object::Route(Route::last_resort(own)));
        reconcile(&kernel, &plan).await;
        let shown = ip("route show root 10.244.0.0/16");
        assert_eq!(
            shown.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "blackhole 10.244.0.0/16 metric 4096",
                "10.244.8.0/24 dev docker0 proto kernel scope link src 10.244.8.1",
                "blackhole 10.244.8.0/24 proto 72 metric 4096",
            ]
        );
        let shown = ip("-6 route show fd42:0:0:8::/64");
        assert!(shown.contains("dev docker0 proto kernel metric 256"), "{shown}");
        assert!(shown.contains("blackhole fd42:0:0:8::/64 dev lo proto 72 metric 4096"), "{shown}");
        reconcile(&kernel, &[]).await;
        assert_eq!(ip("route show proto 72") + &ip("-6 route show proto 72"), "");
        assert!(ip("route show").contains("blackhole 10.244.0.0/16 metric 4096"));
    });
}

#[test]
fn failing_object_does_not_block_others() {
    on_a_host(async |kernel| {
        let nonsense = |third: u8| {
            Object::Route(Route {
                metric: Metric::Default,
                destination: format!("10.244.{third}.0/24").parse().unwrap(),
                action: RouteAction::Forward {
                    link: name("eth0"),
                    gateway: Some("172.31.0.1".parse().unwrap()),
                    onlink: false,
                },
            })
        };
        let stray = Object::Neighbour(Neighbour {
            link: name("nowhere"),
            address: "10.244.5.0".parse().unwrap(),
            mac: "02:00:00:00:00:05".parse().unwrap(),
        });
        let good = [node_v4(), peer_v4()].concat();
        let mut plan = vec![nonsense(1), stray.clone()];
        plan.extend(good.clone());
        plan.push(nonsense(99));
        let failures = try_reconcile(&kernel, &plan).await;
        let failed: Vec<&Object> = failures.iter().map(|failure| failure.change.object()).collect();
        assert_eq!(failed.len(), 3, "{failures:#?}");
        for object in [&nonsense(1), &nonsense(99), &stray] {
            assert!(failed.contains(&object), "{object}");
        }
        let refused =
            failures.iter().find(|f| f.change.object() == &nonsense(1)).unwrap().to_string();
        assert!(
            refused.starts_with("cannot put route 10.244.1.0/24 via 172.31.0.1 dev eth0: Network is unreachable (ENETUNREACH)"),
            "{refused}"
        );
        assert!(refused.ends_with("the gateway is on no network of that device"), "{refused}");
        assert_eq!(missing(&kernel, &good).await, []);
    });
}

#[test]
fn batch_of_failures_names_each_change() {
    on_a_host(async |kernel| {
        let changes: Vec<ObjectChange> = (0..2000u32)
            .map(|number| {
                let [_, _, high, low] = number.to_be_bytes();
                ObjectChange::Put(Object::Route(Route {
                    metric: Metric::Default,
                    destination: format!("10.{high}.{low}.0/24").parse().unwrap(),
                    action: RouteAction::Forward {
                        link: name("eth0"),
                        gateway: Some("172.31.0.1".parse().unwrap()),
                        onlink: false,
                    },
                }))
            })
            .collect();
        let failures = kernel.apply(&scope(), changes.clone()).await;
        let failed: Vec<ObjectChange> =
            failures.into_iter().map(|failure| failure.change).collect();
        assert_eq!(failed, changes);
    });
}

#[test]
fn removing_missing_object_succeeds() {
    on_a_host(async |kernel| {
        let plan = [node_v4(), peer_v4(), node_v6(), peer_v6()].concat();
        reconcile(&kernel, &plan).await;
        let removals: Vec<ObjectChange> =
            plan.iter().rev().cloned().map(ObjectChange::Remove).collect();
        for round in ["there", "gone, devices and all"] {
            let failures = kernel.apply(&scope(), removals.clone()).await;
            assert!(failures.is_empty(), "{round}: {failures:#?}");
        }
        reconcile(&kernel, &[node_v4(), node_v6()].concat()).await;
        let peers: Vec<ObjectChange> =
            [peer_v4(), peer_v6()].concat().into_iter().map(ObjectChange::Remove).collect();
        let failures = kernel.apply(&scope(), peers).await;
        assert!(failures.is_empty(), "gone, the devices still there: {failures:#?}");
    });
}
