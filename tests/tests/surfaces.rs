//! Each fault of a node shows on every surface that an operator may look at, and on none of them
//! once it is repaired.

use std::fs;
use std::process::Command;
use std::time::Duration;

use heddle_lab::{Families, wait_until};
use heddle_tests::surfaces::{Surface, Surfaces, WATCHED};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer, SOON};

/// Documented time limit for any surface to show a fault of a peer: three probes at an interval of
/// a second and the timeout of the last, and a second until the page asks again. Doubled, because
/// other tests and a browser keep the machine busy.
const SHOWN: Duration = Duration::from_secs(20);

/// More peers than the metrics name one by one.
const MANY: u16 = 250;

/// Returns two nodes that answer each other.
fn pair(cluster: &Cluster) -> [Node; 2] {
    let mut nodes = ["a", "b"].map(|name| cluster.starting_node(name, &WATCHED));
    for node in &mut nodes {
        node.daemon().wait_ready().unwrap();
    }
    nodes
}

fn nft(node: &Node, commands: &str) {
    let mut command = Command::new("nft");
    command.arg(commands);
    node.host.namespace().run(command).unwrap();
}

/// Returns the texts on each surface for peers with a fault.
fn of_peers(in_words: &'static str, series: &'static str) -> [(Surface, &'static str); 5] {
    [
        (Surface::Doctor, "peers"),
        (Surface::Status, in_words),
        (Surface::Readyz, in_words),
        (Surface::Metrics, series),
        (Surface::Page, "faulty peers"),
    ]
}

/// Injects a fault, waits until each of these surfaces shows it, repairs it, and waits until none
/// reports anything.
fn fault(
    node: &mut Node,
    surfaces: &mut Surfaces,
    wanted: &[(Surface, &str)],
    inject: impl FnOnce(&mut Node),
    repair: impl FnOnce(&mut Node),
) {
    inject(node);
    let seen = surfaces.wait_for(node, wanted, SHOWN);
    println!("{wanted:?} after {seen:?}");
    repair(node);
    surfaces.wait_quiet(node, SHOWN);
}

#[test]
fn faults_of_peers_show_on_every_surface() {
    let cluster = Cluster::new(Families::V4);
    let [mut a, b] = pair(&cluster);
    let mut surfaces = Surfaces::of(&cluster, &a);
    surfaces.wait_quiet(&mut a, SHOWN);

    // The other host's firewall drops the backend's packets.
    fault(
        &mut a,
        &mut surfaces,
        &of_peers("1 no answer", "heddle_peers_unreachable 1"),
        |_| {
            let rules = "add table inet site; add chain inet site input { type filter hook input \
                         priority 0; }; add rule inet site input udp dport 8472 drop";
            nft(&b, rules);
        },
        |_| nft(&b, "delete table inet site"),
    );
    fault(
        &mut a,
        &mut surfaces,
        &of_peers("1 no plan", "heddle_peers_faulty 1"),
        |_| {
            let lease = r#"{"PublicIP":"172.16.0.9","BackendType":"wormhole"}"#;
            cluster.put_lease("10.244.250.0-24", lease);
        },
        |_| cluster.delete_lease("10.244.250.0-24"),
    );
    fault(
        &mut a,
        &mut surfaces,
        &of_peers("1 not used", "heddle_records_rejected 1"),
        |_| cluster.put_lease("nonsense", "{}"),
        |_| cluster.delete_lease("nonsense"),
    );
}

#[test]
fn unreachable_peers_of_large_cluster_show_on_every_surface() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let [mut a, _b] = pair(&cluster);
    let mut surfaces = Surfaces::of(&cluster, &a);
    surfaces.wait_quiet(&mut a, SHOWN);
    let peers = Peer::range(0, MANY);
    fault(
        &mut a,
        &mut surfaces,
        &of_peers("250 no answer", "heddle_peers_unreachable 250"),
        |_| cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap(),
        |_| peers.iter().for_each(|peer| cluster.delete_lease(&peer.lease_key())),
    );
}

/// Returns the texts on each surface for a condition that does not hold.
fn of_condition(name: &'static str, label: &'static str) -> [(Surface, &'static str); 4] {
    [
        (Surface::Status, name),
        (Surface::Readyz, name),
        (Surface::Metrics, label),
        (Surface::Page, name),
    ]
}

#[test]
fn faults_of_node_show_on_every_surface() {
    let mut cluster = Cluster::new(Families::V4);
    let [mut a, _b] = pair(&cluster);
    let mut surfaces = Surfaces::of(&cluster, &a);
    surfaces.wait_quiet(&mut a, SHOWN);

    // A file that cannot be written: something else has its place.
    let mut wanted =
        of_condition("emitters", r#"heddle_condition_met{condition="emitters"} 0"#).to_vec();
    wanted.push((Surface::Doctor, "files"));
    let file = a.host.subnet_file();
    let beside = file.with_extension("old");
    fault(
        &mut a,
        &mut surfaces,
        &wanted,
        |_| {
            fs::rename(&file, &beside).unwrap();
            fs::create_dir(&file).unwrap();
            fs::write(file.join("something"), "else").unwrap();
        },
        |_| fs::remove_dir_all(&file).unwrap(),
    );

    let mut wanted = of_condition("watch", "heddle_watch_stale 1").to_vec();
    wanted.push((Surface::Doctor, "store"));
    cluster.etcd_mut().stop();
    surfaces.wait_for(&mut a, &wanted, 3 * SHOWN);
    cluster.etcd_mut().resume().unwrap();
    surfaces.wait_quiet(&mut a, 3 * SHOWN);

    // A config that the node will run with after its next start only.
    let wanted = [
        (Surface::Doctor, "restart"),
        (Surface::Readyz, "network config"),
        (Surface::Metrics, "heddle_config_superseded 1"),
        (Surface::Page, "network config"),
    ];
    let config = |backend: &str| cluster.store().put_config(&Families::V4.config_with(backend));
    config("host-gw").unwrap();
    surfaces.wait_for(&mut a, &wanted, SHOWN);
    config("vxlan").unwrap();
    surfaces.wait_quiet(&mut a, SHOWN);
}

#[test]
fn faults_before_the_lease_have_the_same_name_on_every_surface() {
    let cluster = Cluster::with_config(Families::V4, None);
    let mut a = cluster.starting_node("a", &WATCHED);
    wait_until("its page", SOON, || a.daemon().health_at("http://127.0.0.1:9981/")).unwrap();
    let mut surfaces = Surfaces::of(&cluster, &a);
    let mut wanted =
        of_condition("network config", r#"heddle_condition_met{condition="network_config"} 0"#)
            .to_vec();
    wanted.push((Surface::Doctor, "network config"));
    surfaces.wait_for(&mut a, &wanted, SHOWN);

    cluster.store().put_config(&Families::V4.config_with("wormhole")).unwrap();
    let mut wanted =
        of_condition("plugins", r#"heddle_condition_met{condition="plugins"} 0"#).to_vec();
    wanted.push((Surface::Doctor, "wormhole"));
    surfaces.wait_for(&mut a, &wanted, SHOWN);

    cluster.store().put_config(&Families::V4.config()).unwrap();
    surfaces.wait_quiet(&mut a, 2 * SHOWN);
}
