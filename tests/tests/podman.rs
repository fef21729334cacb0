//! podman's containers in the overlay, through the CNI network that the emitter `cni-conf` writes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use heddle_lab::{Families, wait_until};
use heddle_tests::{Cluster, Node, Overlay, Podman, SOON};
use serde_json::Value;

/// Starts a node with a container called `web`. podman must be dropped before its host.
fn start(cluster: &Cluster, name: &str) -> (Podman, Node) {
    let networks = cluster.lab().directory().join(name).join(Podman::NETWORKS);
    let emit = format!("--emit=cni-conf:path={}/10-heddle.conflist", networks.display());
    let mut node = cluster.starting_node(name, &[&emit]);
    node.daemon().wait_ready().unwrap();
    let podman = Podman::on(&node.host);
    let run = "run --detach --name web --network heddle --publish 8080:80";
    podman.podman(&format!("{run} {} /bin/busybox httpd -f -h /", Podman::IMAGE)).unwrap();
    (podman, node)
}

/// Returns the container's addresses in the overlay, IPv4 first.
fn addresses(podman: &Podman) -> [String; 2] {
    let inspected = podman.podman("inspect web").unwrap();
    let containers: Value = serde_json::from_str(&inspected).unwrap();
    let network = &containers[0]["NetworkSettings"]["Networks"]["heddle"];
    ["IPAddress", "GlobalIPv6Address"].map(|family| network[family].as_str().unwrap().to_owned())
}

/// Fetches a page from a web server.
fn fetch(address: Ipv4Addr, port: u16) -> std::io::Result<String> {
    let mut connection = TcpStream::connect((address, port))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn podman_containers_reach_each_other_and_publish_ports() {
    let cluster = Cluster::new(Families::Dual);
    let machines = [start(&cluster, "a"), start(&cluster, "b")];
    for (index, (podman, node)) in machines.iter().enumerate() {
        let own = addresses(podman);
        for (overlay, address) in [Overlay::V4, Overlay::V6].into_iter().zip(&own) {
            let subnet = cluster.subnet(node, overlay);
            assert!(
                subnet.contains(&address.parse::<IpAddr>().unwrap()),
                "{address} is not in {subnet}"
            );
        }
        let mtu = podman.exec("web", "cat /sys/class/net/eth0/mtu").unwrap();
        assert_eq!(mtu, "1430\n");

        let (peer, other) = &machines[1 - index];
        for (address, headers) in addresses(peer).iter().zip([28, 48]) {
            // An IPv6 address is usable after one second (duplicate address detection).
            let ping = format!("ping -c 1 -W 1 -s {} {address}", 1430 - headers);
            wait_until("an answer", SOON, || podman.exec("web", &ping)).unwrap();
        }
        let page = node.host.namespace().enter(|| fetch(other.host.v4(), 8080)).unwrap().unwrap();
        assert!(page.ends_with(Podman::PAGE), "{page}");
    }
}
