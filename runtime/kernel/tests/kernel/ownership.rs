use std::time::Duration;

use heddle_core::diff::{ObjectChange, Scope};
use heddle_core::object::{Object, ObjectKey};
use heddle_kernel::{ApplyError, Event};

use crate::host::*;

/// Builds one change for each object, devices first because all others depend on them.
fn changes(objects: &[Object], change: fn(Object) -> ObjectChange) -> Vec<ObjectChange> {
    let mut objects = objects.to_vec();
    objects.sort_by_key(|object| !matches!(object, Object::Link(_)));
    objects.into_iter().map(change).collect()
}

#[test]
fn unplanned_own_objects_are_removed_and_foreign_kept() {
    on_a_host(async |kernel| {
        let stale = peer("flannel.1", "10.244.77.0/24", "02:00:00:00:00:77", "192.168.0.77");
        reconcile(&kernel, &[node_v4(), peer_v4(), stale].concat()).await;
        // Foreign routes: inside the overlay, outside, through our device, on other devices.
        ip("route add 10.244.200.0/24 via 192.168.0.200 dev eth0");
        ip("route add 10.244.201.0/24 via 192.168.0.200 dev eth0 proto bird");
        ip("route add 10.244.202.0/24 dev flannel.1 proto bird");
        ip("route add 10.99.0.0/16 dev flannel.1 proto static");
        ip("route add 10.98.0.0/16 via 192.168.0.200 proto 72");
        ip("route add 10.244.77.0/24 via 192.168.0.200 metric 500 proto 72");
        ip("route add 10.244.77.0/24 via 192.168.0.200 table 100 proto 72");
        ip("neighbour add 192.168.0.200 lladdr 02:00:00:00:02:00 dev eth0 nud permanent");
        ip("neighbour add 10.244.203.0 lladdr 02:00:00:00:02:03 dev flannel.1 nud stale");
        ip("link add docker0 type bridge");
        ip("link set docker0 up");
        ip("address add 10.244.8.1/24 dev docker0");
        ip("link add flannel.2 type vxlan id 2 local 192.168.0.72 dev eth0 dstport 8472");
        run("bridge", "fdb add 02:00:00:00:02:00 dst 192.168.0.200 dev flannel.2");
        run("bridge", "fdb append 00:00:00:00:00:00 dst 192.168.0.201 dev flannel.2");

        reconcile(&kernel, &[node_v4(), peer_v4()].concat()).await;
        assert_eq!(ip("route show 10.244.77.0/24 proto 72 metric 0"), "");
        assert_eq!(ip("neighbour show 10.244.77.0 dev flannel.1"), "");
        assert!(!run("bridge", "fdb show dev flannel.1").contains("02:00:00:00:00:77"));
        for foreign in [
            "route show 10.244.200.0/24",
            "route show 10.244.201.0/24",
            "route show 10.244.202.0/24",
            "route show 10.99.0.0/16",
            "route show 10.98.0.0/16",
            "route show 10.244.77.0/24 metric 500",
            "route show 10.244.77.0/24 table 100",
            "route show 10.244.8.0/24 dev docker0",
            "neighbour show 192.168.0.200 dev eth0",
            "neighbour show 10.244.203.0 dev flannel.1",
            "link show flannel.2",
        ] {
            assert_ne!(ip(foreign), "", "{foreign}");
        }
        assert_eq!(run("bridge", "fdb show dev flannel.2").lines().count(), 2);
    });
}

#[test]
fn flannel_leftovers_are_adopted_and_cleaned_up() {
    on_a_host(async |kernel| {
        ip(
            "link add flannel.1 type vxlan id 1 local 192.168.0.72 dev eth0 dstport 8472 nolearning",
        );
        ip("link set flannel.1 address 3a:8b:71:f2:2e:01 mtu 1450 up");
        ip("address add 10.244.8.0/32 dev flannel.1");
        for (subnet, number) in [("10.244.36.0", 99), ("10.244.37.0", 98)] {
            ip(&format!("route add {subnet}/24 via {subnet} dev flannel.1 onlink"));
            ip(&format!(
                "neighbour add {subnet} lladdr 02:00:00:00:00:{number} dev flannel.1 nud permanent"
            ));
            run(
                "bridge",
                &format!("fdb add 02:00:00:00:00:{number} dst 192.168.0.{number} dev flannel.1"),
            );
        }
        ip("route add 10.244.38.0/24 via 192.168.0.38 dev eth0");
        let before = device("flannel.1");

        // An adopted device keeps its MAC: the plan copies it.
        let mut plan = node_v4();
        for object in &mut plan {
            if let Object::Link(link) = object {
                link.mac = Some("3a:8b:71:f2:2e:01".parse().unwrap());
            }
        }
        plan.extend(peer("flannel.1", "10.244.36.0/24", "02:00:00:00:00:99", "192.168.0.99"));
        let observed = observe(&kernel, &plan).await;
        let link = &observed.objects[&ObjectKey::Link(name("flannel.1"))];
        assert!(!link.ours, "it does not carry our alias yet");
        reconcile(&kernel, &plan).await;

        let after = device("flannel.1");
        assert_eq!(after["ifindex"], before["ifindex"]);
        assert_eq!(after["address"], "3a:8b:71:f2:2e:01");
        assert_eq!(after["ifalias"], "heddle /coreos.com/network");
        assert_eq!(ip("route show dev flannel.1").lines().count(), 1);
        assert_eq!(ip("neighbour show nud permanent dev flannel.1").lines().count(), 1);
        assert_eq!(run("bridge", "fdb show dev flannel.1").lines().count(), 1);
        // A route through a device that is not ours could be anybody's.
        assert_ne!(ip("route show 10.244.38.0/24"), "");
    });
}

#[test]
fn flannel_route_in_plan_becomes_ours() {
    on_a_host(async |kernel| {
        reconcile(&kernel, &[node_v4(), node_v6()].concat()).await;
        ip("route add 10.244.36.0/24 via 192.168.0.99 dev eth0");
        ip("-6 route add fd42:0:0:24::/64 via 2001:db8::99 dev eth0");
        ip("route add unreachable 10.244.37.0/24");
        let other = peer("flannel.1", "10.244.37.0/24", "02:00:00:00:00:37", "192.168.0.37");
        let plan = [node_v4(), node_v6(), peer_v4(), peer_v6(), other].concat();
        reconcile(&kernel, &plan).await;
        assert_eq!(ip("route show 10.244.36.0/24").lines().count(), 1);
        assert_eq!(ip("-6 route show fd42:0:0:24::/64").lines().count(), 1);
        reconcile(&kernel, &[node_v4(), node_v6()].concat()).await;
        assert_eq!(ip("route show 10.244.36.0/24"), "");
    });
}

#[test]
fn marked_device_not_in_plan_is_removed() {
    on_a_host(async |kernel| {
        ip("link add flannel.7 type vxlan id 7 local 192.168.0.72 dev eth0 dstport 8472");
        ip("link add flannel.8 type vxlan id 8 local 192.168.0.72 dev eth0 dstport 8472");
        for (device, alias) in [("flannel.7", scope().alias), ("flannel.8", "heddle /other".into())]
        {
            let status = std::process::Command::new("ip")
                .args(["link", "set", device, "alias", &alias])
                .status();
            assert!(status.unwrap().success());
        }
        reconcile(&kernel, &node_v4()).await;
        let names: Vec<String> = json("ip", "link show type vxlan")
            .iter()
            .map(|d| d["ifname"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["flannel.8", "flannel.1"], "the other daemon's device is left alone");
    });
}

#[test]
fn other_daemons_device_is_refused_and_left_unchanged() {
    on_a_host(async |kernel| {
        // A device of another daemon, for another network with the same VNI.
        let theirs = Scope { alias: "heddle /other".into(), ..scope() };
        let plan = [node_v4(), peer_v4()].concat();
        let made = kernel.apply(&theirs, changes(&plan, ObjectChange::Put)).await;
        assert!(made.is_empty(), "{made:#?}");
        let shown = || {
            let listed = ["link", "address", "neighbour", "route"]
                .map(|what| ip(&format!("{what} show dev flannel.1")));
            (listed, run("bridge", "fdb show dev flannel.1"))
        };
        let before = shown();

        let observed = kernel.observe(&scope(), &[]).await.unwrap();
        let ours: Vec<_> = observed.objects.values().filter(|seen| seen.ours).collect();
        assert!(ours.is_empty(), "{ours:#?}");
        assert!(observed.objects.contains_key(&ObjectKey::Link(name("flannel.1"))));

        let link = [Object::Link(vxlan("flannel.1", "192.168.0.72"))];
        for change in [ObjectChange::Put, ObjectChange::Replace] {
            let failures = kernel.apply(&scope(), changes(&link, change)).await;
            let [failure] = failures.as_slice() else { panic!("{failures:#?}") };
            assert!(matches!(failure.error, ApplyError::AnotherDaemons { .. }));
            assert_eq!(
                failure.error.to_string(),
                "flannel.1 belongs to another heddled (alias `heddle /other`): \
                 change Backend.VNI of one of the two networks, \
                 or, if that daemon is gone, remove the device with `ip link delete flannel.1`"
            );
        }
        assert_eq!(kernel.apply(&scope(), changes(&link, ObjectChange::Remove)).await.len(), 0);
        assert_eq!(shown(), before);
    });
}

#[test]
fn events_on_other_daemons_device_are_not_ours() {
    on_a_host(async |kernel| {
        let theirs = Scope { alias: "heddle /other".into(), ..scope() };
        kernel.apply(&theirs, changes(&node_v4(), ObjectChange::Put)).await;
        let mut events = kernel.subscribe(&scope()).await.unwrap();
        ip("address add 10.244.8.1/32 dev flannel.1");
        let failures = kernel.apply(&theirs, changes(&peer_v4(), ObjectChange::Put)).await;
        assert!(failures.is_empty(), "{failures:#?}");
        // Device events are reported for every owner, so this one is the last.
        ip("link set flannel.1 mtu 1400");
        let last = |event: &Event| match event {
            Event::Seen(seen) => matches!(&seen.object, Object::Link(link) if link.mtu == 1400),
            _ => false,
        };
        let mut seen = Vec::new();
        while !seen.iter().any(last) {
            let batch = tokio::time::timeout(Duration::from_secs(10), events.next_batch()).await;
            seen.extend(batch.unwrap_or_else(|_| panic!("the last is missing: {seen:#?}")));
        }
        let ours = |event: &&Event| matches!(event, Event::Seen(seen) if seen.ours);
        assert_eq!(seen.iter().find(ours), None);
        let route = |event: &Event| matches!(event, Event::Seen(seen) if matches!(seen.object, Object::Route(_)));
        assert!(seen.iter().any(route), "a route into the overlay is told of: {seen:#?}");
    });
}

#[test]
fn ipv6_disabled_leaves_ipv4_working() {
    on_a_host(async |kernel| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        reconcile(&kernel, &[node_v4(), peer_v4()].concat()).await;
        let failures = try_reconcile(&kernel, &[node_v4(), peer_v4(), node_v6()].concat()).await;
        assert!(!failures.is_empty());
        for failure in &failures {
            assert_ne!(failure.change.object().link(), Some(name("flannel.1")), "{failure}");
        }
    });
}
