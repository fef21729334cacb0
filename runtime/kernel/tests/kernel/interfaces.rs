use std::collections::BTreeSet;
use std::net::IpAddr;

use heddle_core::address::{Family, LinkName};
use heddle_core::interface::usability::{AddressScope, Unusable};

use crate::host::*;

#[test]
fn interfaces_list_only_publishable_addresses() {
    on_a_host(async |kernel| {
        ip("address add 192.168.0.73/24 dev eth0");
        ip("address add 169.254.0.1/16 scope link dev eth0");
        ip("address add 2001:db8::73/64 dev eth0 nodad preferred_lft 0");
        ip("link add docker0 type bridge");
        let interfaces = kernel.interfaces().await.unwrap();
        let by_name = |text: &str| interfaces.iter().find(|i| i.name == name(text)).unwrap();
        let lo = by_name("lo");
        assert!(lo.loopback && lo.mac.is_none() && lo.kind.is_empty());
        let eth0 = by_name("eth0");
        assert_eq!((eth0.mtu, eth0.up, eth0.kind.as_str()), (1500, true, "veth"));
        assert_eq!(eth0.mac.unwrap().to_string(), device("eth0")["address"]);
        let addresses: Vec<String> = eth0.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            ["192.168.0.72/24", "192.168.0.73/24", "2001:db8::72/64", "2001:db8::73/64"]
        );
        let unusable = |text: &str| {
            let mut found = eth0.unusable.iter();
            found.find(|(own, _)| own.addr().to_string() == text).map(|(_, reason)| *reason)
        };
        assert_eq!(unusable("169.254.0.1"), Some(Unusable::Scope(AddressScope::Link)));
        let docker0 = by_name("docker0");
        assert!(!docker0.up && docker0.addresses.is_empty());
        assert_eq!(docker0.kind, "bridge");
    });
}

#[test]
fn default_routes_are_sorted_by_metric() {
    on_a_host(async |kernel| {
        ip("link add eth1 type bridge");
        ip("link set eth1 up");
        ip("address add 10.9.0.1/24 dev eth1");
        ip("route add default via 10.9.0.2 dev eth1 metric 100");
        ip("route add default via 10.9.0.2 dev eth1 table 100");
        ip("-6 route add default via 2001:db8::1 dev eth0");
        let names = async |family| kernel.default_routes(family).await.unwrap();
        assert_eq!(names(Family::V4).await, [[name("eth0")], [name("eth1")]]);
        assert_eq!(names(Family::V6).await, [[name("eth0")]]);
        ip("route delete default dev eth0");
        assert_eq!(names(Family::V4).await, [[name("eth1")]]);
        ip("-6 route delete default");
        assert_eq!(names(Family::V6).await, Vec::<Vec<LinkName>>::new());
    });
}

#[test]
fn route_lookup_returns_device_and_source() {
    on_a_host(async |kernel| {
        let to = async |address: &str| kernel.route_to(address.parse().unwrap()).await;
        assert_eq!(
            to("8.8.8.8").await.unwrap(),
            (name("eth0"), Some("192.168.0.72".parse().unwrap()))
        );
        assert_eq!(
            to("2001:db8::9").await.unwrap(),
            (name("eth0"), Some("2001:db8::72".parse().unwrap()))
        );
        let error = to("2001:db9::9").await.unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot read the route to an address: Network is unreachable (ENETUNREACH)"
        );
    });
}

#[test]
fn addresses_have_the_flags_of_the_real_kernel() {
    on_a_host(async |kernel| {
        for (path, value) in [("dad_transmits", "10"), ("use_tempaddr", "2")] {
            let path = format!("/proc/sys/net/ipv6/conf/eth0/{path}");
            std::fs::write(&path, value).unwrap();
        }
        ip("address add 2001:db8:1::1/64 dev eth0");
        ip("address add 2001:db8:2::1/64 dev eth0 nodad mngtmpaddr");
        ip("address add 10.9.0.1 peer 10.9.0.2/24 dev eth0");
        ip("address add 192.168.0.73/24 dev lo");
        let interfaces = kernel.interfaces().await.unwrap();
        let of = |text: &str| interfaces.iter().find(|found| found.name == name(text)).unwrap();
        let own: Vec<_> = of("eth0").addresses.iter().map(ToString::to_string).collect();
        assert!(own.contains(&"2001:db8:2::1/64".to_owned()), "{own:?}");
        assert!(own.contains(&"10.9.0.1/32".to_owned()), "{own:?}");
        let unusable: Vec<_> = of("eth0").unusable.iter().map(|(_, reason)| *reason).collect();
        assert!(unusable.contains(&Unusable::Tentative), "{unusable:?}");
        assert!(unusable.contains(&Unusable::Temporary), "{unusable:?}");
        let on_loopback: Vec<_> = of("lo").addresses.iter().map(ToString::to_string).collect();
        assert_eq!(on_loopback, ["192.168.0.73/32"]);
    });
}

#[test]
fn next_hop_objects_and_several_next_hops_are_followed() {
    on_a_host(async |kernel| {
        ip("link add eth1 type bridge");
        ip("link set eth1 up");
        ip("address add 10.9.0.1/24 dev eth1");
        ip("route delete default dev eth0");
        ip("nexthop add id 7 via 10.9.0.2 dev eth1");
        ip("nexthop add id 8 via 192.168.0.1 dev eth0");
        ip("nexthop add id 20 group 7/8");
        let routes = async || kernel.default_routes(Family::V4).await.unwrap();
        for compat in ["1", "0"] {
            std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", compat).unwrap();
            ip("route replace default nhid 7");
            assert_eq!(routes().await, [[name("eth1")]], "{compat}");
            ip("route replace default nhid 20");
            assert_eq!(routes().await, [[name("eth1"), name("eth0")]], "{compat}");
        }
        ip("route replace default nexthop via 10.9.0.2 dev eth1 nexthop via 192.168.0.1 dev eth0");
        assert_eq!(routes().await, [[name("eth1"), name("eth0")]]);
        ip("route replace unreachable default");
        assert_eq!(routes().await, Vec::<Vec<LinkName>>::new());
    });
}

#[test]
fn egress_has_every_next_hop_towards_an_address() {
    on_a_host(async |kernel| {
        ip("link add eth1 type bridge");
        ip("link set eth1 up");
        ip("address add 10.9.0.1/24 dev eth1");
        ip("nexthop add id 7 via 10.9.0.2 dev eth1");
        ip("route add 203.0.113.0/24 nhid 7");
        ip(
            "route add 198.51.100.0/24 nexthop via 10.9.0.2 dev eth1 nexthop via 192.168.0.1 dev eth0",
        );
        ip("route add blackhole 192.0.2.0/24");
        let source = "192.168.0.72".parse().unwrap();
        let to = async |addresses: &[&str]| {
            let addresses: Vec<IpAddr> =
                addresses.iter().map(|address| address.parse().unwrap()).collect();
            kernel.egress(source, addresses).await.unwrap()
        };
        let (eth0, eth1) = (name("eth0"), name("eth1"));
        assert_eq!(to(&["203.0.113.9"]).await, BTreeSet::from([eth1]));
        assert_eq!(to(&["198.51.100.9"]).await, BTreeSet::from([eth0, eth1]));
        assert_eq!(to(&["192.168.0.9", "203.0.113.9"]).await, BTreeSet::from([eth0, eth1]));
        assert_eq!(to(&["192.0.2.9", "192.168.0.72"]).await, BTreeSet::new());
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").unwrap();
        assert_eq!(to(&["203.0.113.9"]).await, BTreeSet::from([eth1]));
    });
}
