//! vxlan-tun, a plugin that creates the payload of every datagram: the result is VXLAN, as judged
//! by tcpdump and by a kernel.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use heddle_lab::{Container, Families, Host, Namespace, transfer, wait_until};
use heddle_tests::{Cluster, Node, Overlay, SOON};
use serde_json::Value;

/// MTU of the device over an underlay with an MTU of 1500, where one family's datagrams have IPv6
/// headers.
const MTU: u32 = 1500 - 40 - 8 - 22;

/// Returns the MAC to which a node accepts frames of a family, from its lease.
fn mac(cluster: &Cluster, node: &Node, overlay: Overlay) -> String {
    let value: Value = serde_json::from_str(&cluster.lease(node).value).unwrap();
    let field = if overlay == Overlay::V4 { "BackendData" } else { "BackendV6Data" };
    value[field]["VtepMAC"].as_str().unwrap().to_owned()
}

/// Asserts that two containers reach each other in both families, with packets of the full MTU and
/// with TCP.
fn check_both_ways(one: &Container, other: &Container) {
    for (from, to) in [(one, other), (other, one)] {
        for &address in to.addresses() {
            let headers = if address.is_ipv4() { 28 } else { 48 };
            from.ping(address, MTU - headers).unwrap();
            let moved = transfer(from.namespace(), to.namespace(), address, 20_000_000, None);
            let moved = moved.unwrap();
            assert!(moved.is_whole(), "{moved:?}");
        }
    }
}

/// A running tcpdump, and its output so far.
struct Capture {
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Capture {
    /// Captures on a host's underlay. tcpdump decodes everything on the port as VXLAN.
    fn start(namespace: &Namespace) -> Self {
        let mut command = Command::new("tcpdump");
        command.args(["-i", "eth0", "-n", "-l", "-v", "-e", "--immediate-mode", "-T", "vxlan"]);
        command.args(["udp", "port", "8472"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.spawn(command).unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let output = child.stdout.take().unwrap();
        let lines = printed.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                *lines += &line;
                lines.push('\n');
            }
        });
        // tcpdump reports on stderr when it listens.
        let errors = BufReader::new(child.stderr.take().unwrap());
        let heard = errors.lines().map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(heard, "tcpdump has ended");
        Self { child, printed }
    }

    fn printed(&self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It may have exited already, so errors are ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn vxlan_tun_packets_are_vxlan_to_tcpdump() {
    let cluster = Cluster::with_backend(Families::Dual, "vxlan-tun");
    let nodes = cluster.nodes(["a", "b"]);
    let [a, b] = &nodes;
    for node in [a, b] {
        let data =
            |overlay| Some(format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(&cluster, node, overlay)));
        let expected = node.lease_value(Overlay::all(Families::Dual), Some("vxlan-tun"), data);
        assert_eq!(cluster.lease(node).value, expected);
        assert_eq!(node.devices(), ["vtun.1"]);
        assert_eq!(node.link("vtun.1")["mtu"], MTU);
    }
    let [in_a, in_b] = [a, b].map(|node| node.host.container().unwrap());
    let capture = Capture::start(a.host.namespace());

    for (overlay, from, to) in [
        (Overlay::V4, (a, &in_a), (b, &in_b)),
        (Overlay::V6, (a, &in_a), (b, &in_b)),
        (Overlay::V4, (b, &in_b), (a, &in_a)),
        (Overlay::V6, (b, &in_b), (a, &in_a)),
    ] {
        let number = usize::from(overlay == Overlay::V6);
        let inner = [from, to].map(|(_, container)| container.addresses()[number]);
        let outer = [from, to].map(|(node, _)| overlay.address_of(&node.host));
        let macs = [from, to].map(|(node, _)| mac(&cluster, node, overlay));
        from.1.ping(inner[1], MTU - 48).unwrap();

        let outer = format!(" > {}.8472: ", outer[1]);
        let ethernet = format!("{} > {}, ethertype IPv{}", macs[0], macs[1], 4 + 2 * number);
        let addresses = format!("{} > {}: ", inner[0], inner[1]);
        let echo = ["ICMP echo request", "ICMP6, echo request"][number];
        wait_until(format!("VXLAN with {echo}, {addresses}"), SOON, || {
            let printed = capture.printed();
            // The outer headers are printed before those of VXLAN, and the contents on at most two
            // lines after them.
            let parts: Vec<_> = printed.split("VXLAN, flags [I] (0x08), vni 1\n").collect();
            let found = parts.windows(2).any(|parts| {
                let inner = parts[1].lines().take(2).collect::<String>();
                parts[0].ends_with(&outer)
                    && [&ethernet, &addresses, echo].iter().all(|text| inner.contains(*text))
            });
            if found { Ok(()) } else { Err(printed) }
        })
        .unwrap();
    }
    let printed = capture.printed();
    for complaint in ["wrong icmp", "bad icmp6", "bad cksum", "[|", "truncated"] {
        assert!(!printed.contains(complaint), "{printed}");
    }
    drop(capture);
    check_both_ways(&in_a, &in_b);
}

/// A host with a kernel VXLAN device that is configured by hand, without a daemon.
struct ByHand {
    host: Host,
}

impl ByHand {
    const SUBNETS: [&str; 2] = ["10.244.200.0/24", "fd00:10:244:200::/64"];

    /// Creates the host's devices and its lease.
    fn join(cluster: &Cluster) -> Self {
        let host = cluster.host("hand");
        let (v4, v6) = (host.v4(), host.v6());
        let ip = |line: &str| host.namespace().ip(line).unwrap();
        // The veth leaves checksums inside of VXLAN to a network card that does not exist.
        let mut ethtool = Command::new("ethtool");
        ethtool.args(["-K", "eth0", "tx", "off"]);
        host.namespace().run(ethtool).unwrap();
        let mut macs = Vec::new();
        for (device, local, address, mac) in [
            ("vx4", v4.to_string(), "10.244.200.0/32", "02:00:00:00:c8:04"),
            ("vx6", v6.to_string(), "fd00:10:244:200::/128 nodad", "02:00:00:00:c8:06"),
        ] {
            ip(&format!(
                "link add {device} address {mac} mtu {MTU} type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning"
            ));
            ip(&format!("addr add {address} dev {device}"));
            ip(&format!("link set {device} up"));
            macs.push(mac);
        }
        let [mac, mac_v6] = macs[..] else { unreachable!("there are two families") };
        // A daemon's `subnet.env`, for the container helper.
        let file = host.subnet_file();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let env = format!(
            "FLANNEL_SUBNET=10.244.200.1/24\nFLANNEL_IPV6_SUBNET=fd00:10:244:200::1/64\nFLANNEL_MTU={MTU}\n"
        );
        std::fs::write(file, env).unwrap();
        let value = format!(
            r#"{{"PublicIP":"{v4}","PublicIPv6":"{v6}","BackendType":"vxlan-tun","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{mac_v6}"}}}}"#
        );
        let key = Self::SUBNETS.join("&").replace('/', "-");
        cluster.put_lease(&key, &value);
        Self { host }
    }

    /// Adds the entries that a daemon would program for a peer.
    fn enter(&self, cluster: &Cluster, peer: &Node) {
        for (overlay, device) in [(Overlay::V4, "vx4"), (Overlay::V6, "vx6")] {
            let subnet = cluster.subnet(peer, overlay);
            let (first, address) = (subnet.addr(), overlay.address_of(&peer.host));
            let mac = mac(cluster, peer, overlay);
            let namespace = self.host.namespace();
            let neighbour = format!("neigh add {first} lladdr {mac} dev {device} nud permanent");
            namespace.ip(&neighbour).unwrap();
            let fdb = format!("fdb add {mac} dev {device} dst {address} self permanent");
            namespace.bridge(&fdb).unwrap();
            let route = format!("route add {subnet} via {first} dev {device} onlink");
            namespace.ip(&route).unwrap();
        }
    }
}

#[test]
fn kernel_vxlan_and_vxlan_tun_interoperate() {
    let cluster = Cluster::with_backend(Families::Dual, "vxlan-tun");
    let by_hand = ByHand::join(&cluster);
    let node = cluster.node("a");
    by_hand.enter(&cluster, &node);

    let [in_node, in_kernel] = [&node.host, &by_hand.host].map(|host| host.container().unwrap());
    check_both_ways(&in_node, &in_kernel);
}
