//! Reachability probes of peers over the overlay.

use std::time::{Duration, Instant};

use heddle_lab::{Families, wait_until};
use heddle_tests::{Cluster, Node, Overlay, SOON, status};
use serde_json::Value;

/// Time limit for an unresponsive peer to be reported: three requests at intervals of one second,
/// and the timeout of the last one.
const NAMED: Duration = Duration::from_secs(10);

/// Returns a node's health information about another: null while unknown.
fn health(node: &Node, other: &str) -> Value {
    let status = status(&node.host);
    let peers = status["peers"].as_array().unwrap();
    let peer = peers.iter().find(|peer| peer["node_id"] == other);
    peer.map_or(Value::Null, |peer| peer["health"].clone())
}

fn wait_health(node: &Node, other: &str, reachable: bool, limit: Duration) -> Value {
    wait_until(format!("{other} {}reachable", if reachable { "" } else { "un" }), limit, || {
        let health = health(node, other);
        if health["reachable"] == reachable { Ok(health) } else { Err(format!("{health}")) }
    })
    .unwrap()
}

#[test]
fn probes_show_which_two_hosts_are_disconnected() {
    for (backend, families) in
        [("vxlan", Families::V4), ("vxlan", Families::V6), ("udp", Families::V4)]
    {
        let cluster = Cluster::with_backend(families, backend);
        let flags = ["--probe-interval=1"];
        let mut nodes = ["a", "b", "c"].map(|name| cluster.starting_node(name, &flags));
        for node in &mut nodes {
            node.daemon().wait_ready().unwrap();
        }
        let [mut a, mut b, c] = nodes;
        for (node, others) in [(&a, ["b", "c"]), (&b, ["a", "c"]), (&c, ["a", "b"])] {
            for other in others {
                let health = wait_health(node, other, true, SOON);
                let micros = health["rtt_micros"].as_u64().unwrap();
                assert!((1..1_000_000).contains(&micros), "{health}");
            }
        }

        // Cut the connection between b and c, in both directions; a reaches both.
        let address = Overlay::all(families)[0].address_of(&b.host);
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let began = Instant::now();
        c.ip(&format!("{family} route add blackhole {address}"));
        wait_health(&c, "b", false, NAMED);
        let health = wait_health(&b, "c", false, NAMED);
        println!("{backend} {families:?}: named after {:?}", began.elapsed());
        assert!(health["loss_percent"].as_f64().unwrap() > 0.0, "{health}");
        assert_eq!(health_of_both(&a), [true, true]);
        let lease = cluster.lease(&c);
        let key = lease.key.rsplit_once('/').unwrap().1;
        b.daemon().wait_log(&["peer", key, "does not answer at"], SOON).unwrap();

        c.ip(&format!("{family} route del blackhole {address}"));
        wait_health(&b, "c", true, SOON);
        wait_health(&c, "b", true, SOON);
        a.daemon().check_running().unwrap();
    }
}

fn health_of_both(node: &Node) -> [bool; 2] {
    ["b", "c"].map(|other| health(node, other)["reachable"] == true)
}

#[test]
fn icmp_error_does_not_count_as_probe_answer() {
    for families in [Families::V4, Families::V6] {
        let cluster = Cluster::with_backend(families, "host-gw");
        let mut nodes = ["a", "b"].map(|name| cluster.starting_node(name, &["--probe-interval=1"]));
        for node in &mut nodes {
            node.daemon().wait_ready().unwrap();
        }
        let [a, b] = nodes;
        // Without a bridge, no device has the probed address, and b's kernel answers with an ICMP
        // error.
        let subnet = cluster.subnet(&b, Overlay::all(families)[0]);
        let family = if subnet.addr().is_ipv4() { "-4" } else { "-6" };
        b.ip(&format!("{family} route add unreachable {subnet} metric 4096"));
        // A bridge that has never answered may not exist: neither an error nor an answer.
        std::thread::sleep(Duration::from_secs(5));
        assert!(health(&a, "b").is_null());

        let bridge = subnet.hosts().find(|address| *address != subnet.network()).unwrap();
        b.ip("link add name br0 type bridge");
        b.ip(&format!("address add {bridge}/{} dev br0 nodad", subnet.prefix_len()));
        b.ip("link set br0 up");
        wait_health(&a, "b", true, SOON);
        b.ip("link delete br0");
        wait_health(&a, "b", false, NAMED);
    }
}

#[test]
fn probes_are_off_by_default() {
    let cluster = Cluster::new(Families::V4);
    let [a, _b] = cluster.nodes(["a", "b"]);
    wait_until("a peer", SOON, || {
        let status = status(&a.host);
        if status["peers"].as_array().is_some_and(|peers| peers.len() == 1) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(health(&a, "b").is_null());
}
