//! Plugins from a directory: the daemon finds them, and their failures affect only the peer
//! concerned.

use std::path::Path;
use std::time::Duration;

use heddle_lab::{Families, Signal, wait_until};
use heddle_tests::{Cluster, Node, SOON, rogue};

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"rogue"}}"#;

/// Time limit for the failures to be handled: a call may take one second, and there are several.
const CONTAINED: Duration = Duration::from_secs(30);

fn install(directory: &Path) {
    std::fs::copy(rogue(), directory.join("rogue.wasm")).unwrap();
}

/// Starts a node with a plugin directory of its own.
fn node(cluster: &Cluster) -> (Node, std::path::PathBuf) {
    // Build the component before anything waits for it.
    rogue();
    let plugins = cluster.lab().directory().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let node = cluster.starting_node("a", &[&format!("--plugin-dir={}", plugins.display())]);
    (node, plugins)
}

/// Returns a peer's lease with an address on the same underlay, so that the kernel accepts a route
/// to it.
fn lease(number: u8, data: &str) -> (String, String) {
    let value = format!(
        r#"{{"PublicIP":"192.168.100.{number}","PublicIPv6":null,"BackendType":"rogue","BackendData":{data}}}"#
    );
    (format!("10.244.{number}.0-24"), value)
}

fn put(cluster: &Cluster, number: u8, data: &str) {
    let (key, value) = lease(number, data);
    cluster.put_lease(&key, &value);
}

/// Waits until exactly these peers have their route.
fn wait_for_routes(node: &Node, numbers: &[u8]) {
    let expected: Vec<_> = numbers.iter().map(|n| format!("10.244.{n}.0/24")).collect();
    wait_until(format!("routes {expected:?}"), CONTAINED, || {
        let state = node.host.kernel_state().unwrap();
        let found: Vec<_> = state
            .routes
            .iter()
            .filter(|route| route.protocol.as_deref() == Some("72"))
            .map(|route| route.dst.clone())
            .collect();
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .unwrap();
}

#[test]
fn plugin_added_to_directory_is_used() {
    let cluster = Cluster::with_config(Families::V4, Some(CONFIG));
    let (mut node, plugins) = node(&cluster);
    node.daemon().wait_log(&["rogue", &plugins.display().to_string()], SOON).unwrap();
    put(&cluster, 201, "null");
    install(&plugins);
    node.daemon().wait_ready().unwrap();
    wait_for_routes(&node, &[201]);
    assert!(cluster.lease(&node).value.contains(r#""BackendType":"rogue""#));
}

#[test]
fn file_that_is_no_plugin_is_reported() {
    let cluster = Cluster::with_config(Families::V4, Some(CONFIG));
    let (mut node, plugins) = node(&cluster);
    let file = plugins.join("rogue.wasm");
    std::fs::write(&file, "this is not WebAssembly").unwrap();
    wait_until("/readyz naming the file", SOON, || match node.daemon().health("/readyz") {
        Ok((503, body)) if body.contains(&file.display().to_string()) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    install(&plugins);
    node.daemon().wait_ready().unwrap();
}

#[test]
fn peer_that_fails_plugin_is_reported_and_others_work() {
    let cluster = Cluster::with_config(Families::V4, Some(CONFIG));
    let (mut node, plugins) = node(&cluster);
    install(&plugins);
    put(&cluster, 201, "null");
    put(&cluster, 210, r#""trap""#);
    node.daemon().wait_ready().unwrap();
    wait_for_routes(&node, &[201]);
    for (number, data, reason) in [
        (210, r#""trap""#, "as was asked for"),
        (211, r#""hang""#, "time limit"),
        (212, r#""hoard""#, "memory"),
        (213, r#""theft""#, "0.0.0.0/0"),
    ] {
        put(&cluster, number, data);
        let key = format!("10.244.{number}.0-24");
        node.daemon().wait_log(&[&key, reason], CONTAINED).unwrap();
        // A peer that joins afterwards is planned all the same.
        put(&cluster, number - 8, "null");
    }
    wait_for_routes(&node, &[201, 202, 203, 204, 205]);
    assert_eq!(node.daemon().health("/readyz").unwrap().0, 200);
    assert_eq!(node.daemon().health("/healthz").unwrap().0, 200);

    // Its lease no longer causes a failure.
    put(&cluster, 211, "null");
    wait_for_routes(&node, &[201, 202, 203, 204, 205, 211]);
    // A peer that was planned before keeps its route.
    put(&cluster, 201, r#""trap""#);
    node.daemon().wait_log(&["10.244.201.0-24", "as was asked for"], CONTAINED).unwrap();
    wait_for_routes(&node, &[201, 202, 203, 204, 205, 211]);
    node.daemon().check_running().unwrap();
    // It keeps the route even across a restart, after which the daemon has never had a plan for it.
    node.stop(Signal::KILL);
    cluster.restart(&mut node);
    node.daemon().wait_log(&["10.244.201.0-24", "as was asked for"], CONTAINED).unwrap();
    wait_for_routes(&node, &[201, 202, 203, 204, 205, 211]);
    // Limits with four peers that keep failing.
    let log = node.daemon().log();
    assert!(log.lines().count() < 200, "{} lines of log", log.lines().count());
    let memory = node.daemon().resident_memory().unwrap();
    assert!(memory < 100 << 20, "{memory} bytes");
}

#[test]
fn plugin_failing_from_start_leaves_daemon_working() {
    for (harm, reason) in
        [("trap", "as was asked for"), ("hang", "time limit"), ("hoard", "memory")]
    {
        let config = format!(
            r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"rogue","Harm":"{harm}"}}}}"#
        );
        let cluster = Cluster::with_config(Families::V4, Some(&config));
        let (mut node, plugins) = node(&cluster);
        install(&plugins);
        wait_until(format!("/readyz saying “{reason}”"), CONTAINED, || {
            match node.daemon().health("/readyz") {
                Ok((503, body)) if body.contains("rogue") && body.contains(reason) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .unwrap();
        assert!(cluster.etcd().leases().unwrap().is_empty());
        cluster.store().put_config(CONFIG).unwrap();
        node.daemon().wait_ready().unwrap();
    }
}
