use heddle_core::address::Family;

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
        assert_eq!(addresses, ["192.168.0.72/24", "192.168.0.73/24", "2001:db8::72/64"]);
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
        assert_eq!(names(Family::V4).await, [name("eth0"), name("eth1")]);
        assert_eq!(names(Family::V6).await, [name("eth0")]);
        ip("route delete default dev eth0");
        assert_eq!(names(Family::V4).await, [name("eth1")]);
        ip("-6 route delete default");
        assert_eq!(names(Family::V6).await, []);
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
