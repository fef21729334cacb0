use heddle_core::diff::{ObjectChange, diff};
use heddle_core::object::{Link, LinkKind, Object};
use heddle_kernel::{ApplyError, Kernel};
use serde_json::json;

use crate::host::*;

#[test]
fn vxlan_device_is_created_like_flannels() {
    on_a_host(async |kernel| {
        reconcile(&kernel, &node_v4()).await;
        let device = device("flannel.1");
        assert_eq!(device["linkinfo"]["info_kind"], "vxlan");
        let options = &device["linkinfo"]["info_data"];
        assert_eq!(options["id"], 1);
        assert_eq!(options["local"], "192.168.0.72");
        assert_eq!(options["link"], "eth0");
        assert_eq!(options["port"], 8472);
        assert_eq!(options["learning"], false);
        assert!(options["gbp"].is_null());
        assert_eq!(device["mtu"], 1450);
        assert_eq!(device["address"], "02:42:0a:f4:08:00");
        assert_eq!(device["ifalias"], "heddle /coreos.com/network");
        assert!(device["flags"].as_array().unwrap().contains(&json!("UP")));
        let text = ip("-d link show flannel.1");
        assert!(text.contains("nolearning") && text.contains("ttl auto"), "{text}");

        let address = &json("ip", "-4 address show flannel.1")[0]["addr_info"][0];
        assert_eq!(address["local"], "10.244.8.0");
        assert_eq!(address["prefixlen"], 32);
        assert_eq!(address["scope"], "global");
        assert!(address["broadcast"].is_null());
        assert_eq!(run("cat", "/proc/sys/net/ipv6/conf/flannel.1/accept_ra"), "0\n");
    });
}

#[test]
fn ipv6_device_has_usable_address_at_once() {
    on_a_host(async |kernel| {
        reconcile(&kernel, &node_v6()).await;
        let device = device("flannel-v6.1");
        let options = &device["linkinfo"]["info_data"];
        assert_eq!(options["local6"], "2001:db8::72");
        assert_eq!(device["mtu"], 1430);
        let address = &json("ip", "-6 address show flannel-v6.1 scope global")[0]["addr_info"][0];
        assert_eq!(address["local"], "fd42:0:0:8::");
        assert_eq!(address["prefixlen"], 128);
        assert!(address["tentative"].is_null());
        assert_eq!(run("cat", "/proc/sys/net/ipv6/conf/flannel-v6.1/accept_ra"), "0\n");
    });
}

#[test]
fn ipv6_sysctl_counts_as_set_on_device_without_ipv6() {
    on_a_host(async |kernel| {
        // Below IPv6's minimum MTU, so the kernel disables IPv6 on the device.
        let link = Link { mtu: 1200, ..vxlan("flannel.1", "192.168.0.72") };
        reconcile(&kernel, &[accept_ra(link.name), Object::Link(link)]).await;
        assert!(!std::path::Path::new("/proc/sys/net/ipv6/conf/flannel.1").exists());
    });
}

#[test]
fn gbp_and_learning_are_set_on_device() {
    on_a_host(async |kernel| {
        let mut link = vxlan("flannel.1", "192.168.0.72");
        if let LinkKind::Vxlan(options) = &mut link.kind {
            options.gbp = true;
            options.learning = true;
        }
        reconcile(&kernel, &[Object::Link(link)]).await;
        let options = &device("flannel.1")["linkinfo"]["info_data"];
        assert_eq!(options["gbp"], true);
        assert_eq!(options["learning"], true);
    });
}

#[test]
fn changeable_settings_are_changed_in_place() {
    on_a_host(async |kernel| {
        let mut link = vxlan("flannel.1", "192.168.0.72");
        reconcile(&kernel, &[Object::Link(link.clone())]).await;
        let before = device("flannel.1");
        link.mtu = 1400;
        link.mac = Some("02:42:0a:f4:08:01".parse().unwrap());
        if let LinkKind::Vxlan(options) = &mut link.kind {
            options.learning = true;
        }
        ip("link set flannel.1 down");
        reconcile(&kernel, &[Object::Link(link)]).await;
        let after = device("flannel.1");
        assert_eq!(after["ifindex"], before["ifindex"]);
        assert_eq!(after["mtu"], 1400);
        assert_eq!(after["address"], "02:42:0a:f4:08:01");
        assert_eq!(after["linkinfo"]["info_data"]["learning"], true);
        assert!(after["flags"].as_array().unwrap().contains(&json!("UP")));
    });
}

#[test]
fn incompatible_device_is_replaced() {
    on_a_host(async |kernel| {
        let mut plan = node_v4();
        plan.extend(peer_v4());
        reconcile(&kernel, &plan).await;
        let before = device("flannel.1");
        for object in &mut plan {
            if let Object::Link(link) = object
                && let LinkKind::Vxlan(options) = &mut link.kind
            {
                options.port = 4789;
            }
        }
        reconcile(&kernel, &plan).await;
        let after = device("flannel.1");
        assert_ne!(after["ifindex"], before["ifindex"]);
        assert_eq!(after["linkinfo"]["info_data"]["port"], 4789);
    });
}

#[test]
fn device_stays_if_replacement_cannot_be_created() {
    on_a_host(async |kernel| {
        let mut plan = node_v4();
        plan.extend(peer_v4());
        reconcile(&kernel, &plan).await;
        let before = json("ip", "address show flannel.1");
        ip("link set eth0 name lan0");
        let observed = kernel.observe(&scope(), &[]).await.unwrap();
        let plan = plan.iter().map(|object| (object.key(), object)).collect();
        let changes = diff(&plan, &observed);
        let replaced =
            |change: &&ObjectChange| matches!(change, ObjectChange::Replace(Object::Link(_)));
        let replacement: Vec<_> = changes.iter().filter(replaced).cloned().collect();
        assert_eq!(replacement.len(), 1, "{changes:#?}");
        let failures = kernel.apply(&scope(), replacement).await;
        let [failure] = &failures[..] else { panic!("{failures:#?}") };
        assert!(matches!(failure.error, ApplyError::NoDevice(missing) if missing == name("eth0")));
        let kept = |mut found: Vec<serde_json::Value>| {
            found[0]["link"].take();
            found[0]["linkinfo"]["info_data"]["link"].take();
            found
        };
        assert_eq!(kept(json("ip", "address show flannel.1")), kept(before));
    });
}

#[test]
fn vxlan_device_with_other_options_is_replaced() {
    for sort in [
        "external",
        "id 1 dstport 8472",
        "id 1 dstport 8472 dev eth0 local 192.168.0.72 remote 192.168.0.9",
    ] {
        on_a_host(async move |kernel| {
            ip(&format!("link add flannel.1 type vxlan {sort}"));
            reconcile(&kernel, &node_v4()).await;
        });
    }
}

#[test]
fn foreign_device_is_refused_and_left_unchanged() {
    on_a_host(async |kernel| {
        ip("link add flannel.1 type bridge");
        ip("link set flannel.1 up");
        ip("address add 10.244.8.1/24 dev flannel.1");
        ip("neighbour add 10.244.8.9 lladdr 02:00:00:00:00:09 dev flannel.1 nud permanent");
        ip("route add 10.244.99.0/24 dev flannel.1");
        let shown = || {
            ["address show flannel.1", "neighbour show dev flannel.1", "route show dev flannel.1"]
                .map(ip)
        };
        let before = shown();
        let failures =
            try_reconcile(&kernel, &[Object::Link(vxlan("flannel.1", "192.168.0.72"))]).await;
        let [failure] = failures.as_slice() else { panic!("{failures:#?}") };
        assert!(matches!(failure.error, ApplyError::Foreign { .. }));
        assert_eq!(
            failure.error.to_string(),
            "flannel.1 exists and is a bridge that heddled did not create: \
             remove it with `ip link delete flannel.1` or change Backend.VNI"
        );
        assert_eq!(shown(), before);
    });
}

#[test]
fn foreign_device_appearing_after_observe_is_refused() {
    on_a_host(async |kernel| {
        let change = ObjectChange::Put(Object::Link(vxlan("flannel.1", "192.168.0.72")));
        ip("link add flannel.1 type bridge");
        let failures = kernel.apply(&scope(), vec![change]).await;
        assert!(matches!(failures[0].error, ApplyError::Foreign { .. }), "{failures:?}");
    });
}

#[test]
fn duplicate_vni_and_port_error_names_the_conflict() {
    on_a_host(async |kernel| {
        ip("link add other type vxlan id 1 local 192.168.0.72 dev eth0 dstport 8472");
        let failures =
            try_reconcile(&kernel, &[Object::Link(vxlan("flannel.1", "192.168.0.72"))]).await;
        let text = failures[0].to_string();
        assert!(text.contains("another device has the same VNI and UDP port"), "{text}");
        assert!(text.contains("the kernel says:"), "{text}");
    });
}

#[test]
fn missing_underlay_fails_device_creation() {
    on_a_host(async |kernel| {
        ip("link delete eth0");
        let failures =
            try_reconcile(&kernel, &[Object::Link(vxlan("flannel.1", "192.168.0.72"))]).await;
        assert!(failures[0].to_string().ends_with("there is no device eth0"), "{}", failures[0]);
    });
}

#[test]
fn sysctl_of_missing_device_fails_alone() {
    on_a_host(async |kernel: Kernel| {
        let mut plan = node_v4();
        plan.push(accept_ra(name("nowhere")));
        let failures = try_reconcile(&kernel, &plan).await;
        assert_eq!(failures.len(), 1);
        assert!(failures[0].to_string().contains("/proc/sys/net/ipv6/conf/nowhere/accept_ra"));
        plan.pop();
        assert_eq!(missing(&kernel, &plan).await, []);
    });
}

fn tun() -> Link {
    Link { name: name("flannel.1"), mtu: 1472, mac: None, up: true, kind: LinkKind::Tun }
}

#[test]
fn tun_device_is_configured_but_never_created() {
    on_a_host(async |kernel| {
        let plan = [Object::Link(tun())];
        let failures = try_reconcile(&kernel, &plan).await;
        assert!(matches!(failures[0].error, ApplyError::NotOpen(_)), "{failures:?}");

        // Like a program does, but persistent.
        ip("tuntap add dev flannel.1 mode tun");
        reconcile(&kernel, &plan).await;
        let device = device("flannel.1");
        assert_eq!(device["mtu"], 1472);
        assert_eq!(device["ifalias"], "heddle /coreos.com/network");
        assert!(device["flags"].as_array().unwrap().contains(&json!("UP")));
    });
}

#[test]
fn tap_device_is_refused_as_foreign() {
    on_a_host(async |kernel| {
        ip("tuntap add dev flannel.1 mode tap");
        let failures = try_reconcile(&kernel, &[Object::Link(tun())]).await;
        assert!(matches!(failures[0].error, ApplyError::Foreign { .. }), "{failures:?}");
    });
}
