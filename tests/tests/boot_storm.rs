//! Row 7 of `docs/reliability.md`, in a separate test program.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use heddle_lab::{Daemon, Families, Host, wait_until};
use heddle_tests::{Cluster, recovered};
use serde_json::Value;

/// Number of nodes that boot at once.
const NODES: usize = 200;

/// Time limit for 200 daemons on a few shared processors.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn row_07_two_hundred_nodes_that_boot_at_once_get_a_subnet_each() {
    // 254 subnets for 200 nodes: nearly every choice collides with another node's.
    let config = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let cluster = Cluster::with_config(Families::V4, Some(config));
    let hosts: Vec<Host> = (0..NODES).map(|n| cluster.host(&format!("n{n}"))).collect();
    let started = Instant::now();
    let mut daemons: Vec<Daemon> =
        hosts.iter().map(|host| host.start(cluster.heddled(host)).unwrap()).collect();
    let all_started = started.elapsed();
    let mut times: Vec<Duration> =
        daemons.iter_mut().map(|daemon| daemon.wait_ready_within(LIMIT).unwrap()).collect();
    let all_ready = started.elapsed();
    times.sort();

    let leases = cluster.etcd().leases().unwrap();
    let owners: BTreeSet<String> = leases
        .values()
        .map(|lease| {
            let lease: Value = serde_json::from_str(lease).unwrap();
            lease["NodeID"].as_str().unwrap().to_owned()
        })
        .collect();
    // All keys are subnets of one length, so the number of keys is the number of subnets.
    assert!(leases.keys().all(|key| key.ends_with(".0-24")), "{leases:#?}");
    assert_eq!((leases.len(), owners.len()), (NODES, NODES));
    for host in &hosts {
        wait_until(format!("the plan, on {}", host.name()), LIMIT, || {
            let found = host.kernel_state().unwrap().on("flannel.1");
            let planned = cluster.planned(host);
            assert_eq!(planned.routes.len(), NODES - 1);
            if found == planned { Ok(()) } else { Err(format!("{} objects", found.len())) }
        })
        .unwrap();
    }
    for daemon in &mut daemons {
        daemon.check_running().unwrap();
    }
    let memory: u64 = daemons.iter().map(|daemon| daemon.resident_memory().unwrap()).sum();
    println!(
        "{NODES} nodes: started within {:.1} s, ready within {:.1} s of the first one's start; each by itself between \
         {:.1} and {:.1} s, {:.1} s in the median; {} MiB in all",
        all_started.as_secs_f64(),
        all_ready.as_secs_f64(),
        times[0].as_secs_f64(),
        times[NODES - 1].as_secs_f64(),
        times[NODES / 2].as_secs_f64(),
        memory >> 20,
    );
    recovered("7, 200 nodes", all_ready);
}
