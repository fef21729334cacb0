use std::collections::BTreeSet;
use std::time::Duration;

use heddle_core::diff::ObjectChange;
use heddle_core::object::{Object, ObjectKey};
use heddle_kernel::{Event, Events, Kernel};
use tokio::time::timeout;

use crate::host::*;

/// Collects events until one matches `wanted`.
async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut all = Vec::new();
    while !all.iter().any(&wanted) {
        match timeout(Duration::from_secs(10), events.next_batch()).await {
            Ok(batch) => all.extend(batch),
            Err(_) => panic!("not among the events: {all:#?}"),
        }
    }
    all
}

async fn gone(events: &mut Events, key: ObjectKey) {
    until(events, |event| *event == Event::Gone(key.clone())).await;
}

fn key(objects: &[Object], of: impl Fn(&ObjectKey) -> bool) -> ObjectKey {
    objects.iter().map(Object::key).find(of).unwrap()
}

async fn watched(kernel: &Kernel) -> Events {
    reconcile(kernel, &plan()).await;
    kernel.subscribe(&scope()).await.unwrap()
}

/// Returns true if the event repeats an object of the plan: the kernel reports IPv6 addresses a
/// little late.
fn is_late_echo(event: &Event) -> bool {
    matches!(event, Event::Seen(seen) if seen.ours && plan().contains(&seen.object))
}

fn plan() -> Vec<Object> {
    [node_v4(), node_v6(), peer_v4(), peer_v6()].concat()
}

#[test]
fn deleted_object_of_each_kind_is_reported_gone() {
    on_a_host(async |kernel| {
        let mut events = watched(&kernel).await;
        for (device, objects, subnet, address, gateway) in [
            (
                "flannel.1",
                [node_v4(), peer_v4()].concat(),
                "10.244.36.0/24",
                "10.244.8.0/32",
                "10.244.36.0",
            ),
            (
                "flannel-v6.1",
                [node_v6(), peer_v6()].concat(),
                "fd42:0:0:24::/64",
                "fd42:0:0:8::/128",
                "fd42:0:0:24::",
            ),
        ] {
            ip(&format!("route delete {subnet} dev {device}"));
            gone(&mut events, key(&objects, |key| matches!(key, ObjectKey::Route(..)))).await;
            ip(&format!("neighbour delete {gateway} dev {device}"));
            gone(&mut events, key(&objects, |key| matches!(key, ObjectKey::Neighbour(..)))).await;
            let fdb = key(&objects, |key| matches!(key, ObjectKey::FdbEntry(..)));
            let ObjectKey::FdbEntry(_, mac) = fdb else { unreachable!() };
            run("bridge", &format!("fdb delete {mac} dev {device} self"));
            gone(&mut events, fdb).await;
            ip(&format!("address delete {address} dev {device}"));
            gone(&mut events, key(&objects, |key| matches!(key, ObjectKey::Address(..)))).await;
            ip(&format!("link delete {device}"));
            gone(&mut events, ObjectKey::Link(name(device))).await;
        }
        reconcile(&kernel, &plan()).await;
    });
}

#[test]
fn object_changed_externally_is_reported_with_new_state() {
    on_a_host(async |kernel| {
        let mut events = watched(&kernel).await;
        ip("route replace 10.244.36.0/24 via 192.168.0.5 dev eth0 proto static");
        let is_route = |event: &Event| matches!(event, Event::Seen(seen) if matches!(seen.object, Object::Route(_)));
        let route = until(&mut events, is_route).await.into_iter().find(is_route);
        let Some(Event::Seen(route)) = route else { panic!("{route:?}") };
        assert_eq!(route.object.to_string(), "route 10.244.36.0/24 via 192.168.0.5 dev eth0");
        assert!(!route.ours);

        ip("neighbour change 10.244.36.0 lladdr 02:00:00:00:00:66 dev flannel.1 nud permanent");
        until(&mut events, |event| matches!(event, Event::Seen(o)
            if o.object.to_string() == "neighbour 10.244.36.0 dev flannel.1 lladdr 02:00:00:00:00:66")).await;
        ip("neighbour change 10.244.36.0 lladdr 02:00:00:00:00:66 dev flannel.1 nud stale");
        gone(&mut events, ObjectKey::Neighbour(name("flannel.1"), "10.244.36.0".parse().unwrap()))
            .await;

        run(
            "bridge",
            "fdb replace 3a:8b:71:f2:2e:de dst 192.168.0.66 dev flannel.1 self permanent",
        );
        until(&mut events, |event| {
            matches!(event, Event::Seen(o)
            if o.object.to_string() == "fdb 3a:8b:71:f2:2e:de dev flannel.1 dst 192.168.0.66")
        })
        .await;

        ip("link set flannel.1 address 02:00:00:00:00:01");
        until(&mut events, |event| matches!(event, Event::Seen(o) if o.ours
            && matches!(&o.object, Object::Link(link) if link.mac.unwrap().to_string() == "02:00:00:00:00:01"))).await;
        // The first pass restores the neighbours that the kernel deleted when the MAC changed.
        reconcile(&kernel, &plan()).await;
        reconcile(&kernel, &plan()).await;
    });
}

#[test]
fn own_changes_are_reported_as_requested() {
    on_a_host(async |kernel| {
        let mut events = watched(&kernel).await;
        let more = [
            peer("flannel.1", "10.244.50.0/24", "02:00:00:00:00:50", "192.168.0.50"),
            peer("flannel-v6.1", "fd42:0:0:50::/64", "02:00:00:00:00:51", "2001:db8::50"),
        ]
        .concat();
        let failures =
            kernel.apply(&scope(), more.iter().cloned().map(ObjectChange::Put).collect()).await;
        assert!(failures.is_empty(), "{failures:?}");
        let wanted: BTreeSet<String> = more.iter().map(ToString::to_string).collect();
        let mut seen = BTreeSet::new();
        while seen != wanted {
            for event in timeout(Duration::from_secs(10), events.next_batch()).await.unwrap() {
                match event {
                    Event::Seen(o) if o.ours && more.contains(&o.object) => {
                        seen.insert(o.object.to_string())
                    }
                    other => {
                        assert!(is_late_echo(&other), "{other:?}");
                        false
                    }
                };
            }
        }
    });
}

#[test]
fn link_going_down_is_reported_for_any_device() {
    on_a_host(async |kernel| {
        let mut events = watched(&kernel).await;
        let changed = |text: &str| {
            let link = name(text);
            move |event: &Event| *event == Event::LinkChanged(link)
        };
        ip("link set flannel.1 down");
        let all = until(&mut events, changed("flannel.1")).await;
        assert!(
            all.iter().any(|event| matches!(event, Event::Seen(o)
            if matches!(&o.object, Object::Link(link) if !link.up))),
            "{all:?}"
        );
        // The kernel did not report that the routes are gone.
        assert_ne!(missing(&kernel, &plan()).await, []);
        reconcile(&kernel, &plan()).await;

        until(&mut events, changed("flannel.1")).await;
        ip("link set eth0 down");
        until(&mut events, changed("eth0")).await;
        ip("link set eth0 up");
        until(&mut events, changed("eth0")).await;
        ip("address delete 192.168.0.72/24 dev eth0");
        until(&mut events, changed("eth0")).await;
        ip("link add veth0 type veth peer name veth1");
        until(&mut events, changed("veth0")).await;
        ip("link set veth0 name renamed");
        until(&mut events, changed("renamed")).await;
        ip("link delete renamed");
        until(&mut events, changed("renamed")).await;
    });
}

#[test]
fn change_outside_scope_causes_no_event() {
    on_a_host(async |kernel| {
        let mut events = watched(&kernel).await;
        ip("route add 10.99.0.0/16 via 192.168.0.9");
        ip("neighbour add 192.168.0.9 lladdr 02:00:00:00:00:09 dev eth0");
        ip("route add 10.244.36.0/24 via 192.168.0.9 metric 7");
        ip("route add 10.244.36.0/24 via 192.168.0.9 table 7");
        ip("link add br0 type bridge");
        ip("link set wire master br0");
        ip("link set wire nomaster");
        ip("route add blackhole 10.244.250.0/24");
        let all = until(&mut events, |event| {
            matches!(event, Event::Seen(o)
            if matches!(o.object, Object::Route(_)))
        })
        .await;
        let others: Vec<&Event> = all
            .iter()
            .filter(|e| **e != Event::LinkChanged(name("br0")) && !is_late_echo(e))
            .collect();
        // The overlay must avoid the host's own routes in its networks, whatever their metric.
        let of_host = |event: &&&Event, destination: &str| match event {
            Event::HostRoute { route, there: true } => {
                route.destination == destination.parse().unwrap()
            }
            _ => false,
        };
        let [one, other, Event::Seen(route)] = others.as_slice() else { panic!("{others:?}") };
        assert!(
            of_host(&one, "10.244.36.0/24") && of_host(&other, "10.244.250.0/24"),
            "{others:?}"
        );
        assert_eq!(route.object.to_string(), "route 10.244.250.0/24 blackhole");
        assert!(!route.ours);
    });
}
