use heddle_core::address::Family;
use heddle_kernel::{VxlanPort, try_vxlan};

use crate::host::*;

#[test]
fn host_links_include_foreign_devices() {
    on_a_host(async |kernel| {
        ip("link add docker0 mtu 1400 type bridge");
        ip("link add veth1 mtu 1300 type veth peer name veth2");
        ip("link set veth1 master docker0 up");
        ip("link set veth1 alias somebody");
        ip("link add plain type vxlan id 7 dstport 4789 local 192.168.0.72 dev eth0 gbp");
        ip("link add six type vxlan id 8 dstport 8472 local 2001:db8::72 dev eth0");
        ip("link add metadata type vxlan dstport 8472 external");
        let links = kernel.host_links().await.unwrap();
        let named = |text: &str| links.iter().find(|link| link.name == name(text)).unwrap();
        let veth1 = named("veth1");
        assert_eq!((veth1.kind.as_str(), veth1.mtu, veth1.up), ("veth", 1300, true));
        assert_eq!((veth1.master, veth1.alias.as_str()), (Some(name("docker0")), "somebody"));
        assert_eq!((named("docker0").master, &named("docker0").vxlan), (None, &None));
        let port = |vni, port, families: &[Family], gbp, special| {
            Some(VxlanPort { vni, port, families: families.into(), gbp, special })
        };
        assert_eq!(named("plain").vxlan, port(7, 4789, &[Family::V4], true, false));
        assert_eq!(named("six").vxlan, port(8, 8472, &[Family::V6], false, false));
        let both = &[Family::V4, Family::V6];
        assert_eq!(named("metadata").vxlan, port(0, 8472, both, false, true));
    });
}

#[test]
fn output_device_depends_on_source_address() {
    on_a_host(async |kernel| {
        ip("link add eth1 type veth peer name wire1");
        ip("link set eth1 up");
        ip("link set wire1 up");
        ip("address add 10.9.0.1/24 dev eth1");
        ip("route add 172.16.0.0/16 dev eth1");
        let ways = async |source: &str, to: &[&str]| {
            let to = to.iter().map(|address| address.parse().unwrap()).collect();
            kernel.ways(source.parse().unwrap(), to).await.unwrap()
        };
        let (eth0, eth1) = (Some(name("eth0")), Some(name("eth1")));
        let to = &["192.168.0.9", "172.16.0.1"];
        assert_eq!(ways("192.168.0.72", to).await, [eth0, eth1]);
        ip("rule add from 192.168.0.72 lookup 100");
        ip("route add default via 192.168.0.1 dev eth0 table 100");
        assert_eq!(ways("192.168.0.72", to).await, [eth0, eth0]);
        assert_eq!(ways("10.9.0.1", to).await, [eth0, eth1]);
        // No address of this host.
        assert_eq!(ways("192.168.0.99", to).await, [None, None]);
    });
}

#[test]
fn vxlan_trial_leaves_no_device() {
    on_a_host(async |kernel| {
        let before = kernel.host_links().await.unwrap();
        try_vxlan().unwrap();
        assert_eq!(kernel.host_links().await.unwrap(), before);
    });
}
