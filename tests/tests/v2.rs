//! Migration of a network that flannel 0.14 keeps in etcd's v2 API.

use std::process::{Command, Output};

use heddle_lab::{Etcd, Families, Host, Lab, wait_until};
use heddle_tests::{Cluster, SOON, heddle, wait_unready};

const NETWORK: &str = "/coreos.com/network";

/// A config as in flannel's guide.
const CONFIG: &str = r#"{"Network":"10.244.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;

/// The MAC of the device that flannel 0.14 made on the first node.
const MAC: &str = "9a:14:00:00:00:07";

/// Runs etcdctl with its v2 API. It has the client library of flannel 0.14, and `mk` with a TTL is the
/// request by which flannel creates a lease (`createSubnet` in its subnet/etcdv2/registry.go).
fn etcdctl(etcd: &Etcd, words: &[&str]) -> String {
    let mut command = Command::new("etcdctl");
    command.args(["--endpoints", etcd.endpoint()]).args(words).env("ETCDCTL_API", "2");
    etcd.host().namespace().run(command).unwrap()
}

/// Returns a lease's value, as flannel 0.14 writes it (`LeaseAttrs` in its subnet/subnet.go).
fn lease(address: &str, mac: &str) -> String {
    format!(
        r#"{{"PublicIP":"{address}","BackendType":"vxlan","BackendData":{{"VtepMAC":"{mac}"}}}}"#
    )
}

/// Returns all values of the v2 API with their indexes, which every write changes.
fn v2(etcd: &Etcd) -> Vec<String> {
    let keys = etcdctl(etcd, &["ls", "--recursive", "-p", "/"]);
    let keys = keys.lines().filter(|key| !key.ends_with('/'));
    let mut found: Vec<_> = keys
        .map(|key| {
            let found = etcdctl(etcd, &["--output", "extended", "get", key]);
            let lines = found.lines().filter(|line| !line.starts_with("TTL:"));
            lines.collect::<Vec<_>>().join("\n")
        })
        .collect();
    // etcd lists them in any order.
    found.sort();
    found
}

/// Runs `heddle import v2`, and returns its exit code and output.
fn import(etcd: &Etcd, options: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(heddle());
    command
        .args(["import", "v2"])
        .args(options)
        .arg(format!("--etcd-endpoints={}", etcd.endpoint()));
    let run = etcd.host().namespace().enter(|| command.output()).unwrap();
    let Output { status, stdout, stderr } = run.unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Writes a network of flannel 0.14: two nodes with leases, one with a reservation, and odd keys.
fn write_network(etcd: &Etcd, first: &Host, reserved: &Host) {
    let mk = |key: &str, value: &str| etcdctl(etcd, &["mk", &format!("{NETWORK}/{key}"), value]);
    let create = |key: &str, value: &str| {
        etcdctl(etcd, &["mk", "--ttl", "86400", &format!("{NETWORK}/subnets/{key}"), value])
    };
    mk("config", CONFIG);
    create("10.244.7.0-24", &lease(&first.v4().to_string(), MAC));
    create("10.244.9.0-24", &lease("192.0.2.9", "9a:14:00:00:00:09"));
    mk("subnets/10.244.20.0-24", &format!(r#"{{"PublicIP":"{}"}}"#, reserved.v4()));
    create("10.250.1.0-24", &lease("192.0.2.10", "9a:14:00:00:00:10"));
    create("10.244.30.0-24", "not json");
    mk("subnets/fd00:1::-64", "{}");
    mk("subnets/notes/a", "a directory");
    mk("comment", "hello");
}

#[test]
fn network_of_flannel_0_14_moves_to_the_v3_api() {
    let lab = Lab::new(Families::V4).unwrap();
    let etcd = Etcd::start_with_v2(&lab).unwrap();
    let cluster = Cluster::with_etcd_as_it_is(lab, etcd);
    let etcd = cluster.etcd();
    let (first, reserved) = (cluster.host("a"), cluster.host("b"));
    write_network(etcd, &first, &reserved);
    let before = v2(etcd);
    assert!(
        before.len() == 9 && before.iter().all(|key| key.contains("Modified-Index")),
        "{before:?}"
    );
    // As flannel leaves it when it stops.
    let device = "link add flannel.1 address 9a:14:00:00:00:07 type vxlan id 1 dev eth0 local ";
    let device = format!("{device}{} dstport 8472 nolearning", first.v4());
    first.namespace().ip(&device).unwrap();

    // A daemon that is started too early names the command, and continues after it.
    let mut node = cluster.starting_node_on(first, &[]);
    wait_unready(node.daemon(), &["network config", "heddle import v2"], SOON);
    node.daemon().wait_log(&["network config", "heddle import v2"], SOON).unwrap();

    let (code, planned) = import(etcd, &["--dry-run"]);
    assert_eq!(code, Some(3), "{planned}");
    assert!(planned.contains("would copy: 4; left out: 5"), "{planned}");
    assert!(etcd.list(NETWORK).unwrap().is_empty());

    let (code, report) = import(etcd, &[]);
    assert_eq!(code, Some(3), "{report}");
    assert!(report.contains("copied: 4; left out: 5"), "{report}");
    for (key, reason) in [
        ("subnets/10.250.1.0-24", "outside `Network`"),
        ("subnets/10.244.30.0-24", "not a JSON object"),
        ("subnets/fd00:1::-64", "not a subnet"),
        ("subnets/notes", "a directory"),
        ("comment", "no key of flannel's"),
    ] {
        let named = report.lines().any(|line| line.starts_with(key) && line.contains(reason));
        assert!(named, "{key}: {report}");
    }

    // The node keeps its subnet and its device, and reaches the node that still has flannel.
    node.daemon().wait_ready().unwrap();
    assert_eq!(node.host.subnet_env().unwrap().subnets, ["10.244.7.1/24".parse().unwrap()]);
    assert_eq!(node.link("flannel.1")["address"], MAC);
    wait_until("a route to the node with flannel", SOON, || {
        let routes = node.ip("route show");
        if routes.contains("10.244.9.0/24 via 10.244.9.0") { Ok(()) } else { Err(routes) }
    })
    .unwrap();
    let own = cluster.lease(&node);
    assert!(own.key.ends_with("/10.244.7.0-24"), "{}", own.key);
    let granted = |key: &str| {
        let found = etcd.get(&format!("{NETWORK}/subnets/{key}")).unwrap().unwrap();
        etcd.time_to_live(found.lease).unwrap()
    };
    let (_, left) = granted("10.244.9.0-24");
    assert!((86_000..=86_400).contains(&left), "{left}");

    // A reservation stays one, and the node with its address has it.
    let other = cluster.node_on(reserved);
    let own = cluster.lease(&other);
    assert!(own.key.ends_with("/10.244.20.0-24") && own.lease == 0, "{own:?}");

    let (code, report) = import(etcd, &[]);
    assert_eq!(code, Some(3), "{report}");
    assert!(report.contains("there already: 4; left out: 5"), "{report}");
    assert!(report.contains("taken over by"), "{report}");
    assert_eq!(v2(etcd), before, "the v2 API is only read");
}
