//! A daemon with little memory, as under a careless `MemoryMax=`.

use std::process::Command;
use std::time::Duration;

use heddle_lab::{Families, Signal, wait_until};
use heddle_tests::{
    Cluster, MemoryLimit, NETWORK_FOR_PEERS, Peer, SOON, graft, heddle, wait_unready,
};

/// Memory in MiB: a third more than a daemon without peers needs.
const LITTLE: u64 = 32;

/// Time limit for a compiler to run out of memory, on a loaded machine.
const NOTICED: Duration = Duration::from_secs(120);

/// Longest time until the next attempt: nine times as long as the first attempt took, ten minutes
/// at most.
const TRIED_AGAIN: Duration = Duration::from_secs(660);

#[test]
fn daemon_in_32_mib_works_with_built_in_plugins() {
    for backend in ["vxlan", "udp"] {
        let group = MemoryLimit::new(LITTLE);
        let cluster = Cluster::with_backend(Families::V4, backend);
        let host = cluster.host("a");
        let mut daemon = host.start(group.wrap(&cluster.heddled(&host))).unwrap();
        daemon.wait_ready().unwrap();
        let other = cluster.node("b");
        let subnet = cluster.subnets(&other)[0];
        wait_until("a route to the peer", SOON, || {
            let routes = host.namespace().ip("route").unwrap();
            if backend == "udp" || routes.contains(&subnet.to_string()) {
                Ok(())
            } else {
                Err(routes)
            }
        })
        .unwrap();
        assert_eq!(daemon.health("/readyz").unwrap().0, 200);
        println!("{backend}: {} KiB", daemon.resident_memory().unwrap() >> 10);
        assert_eq!(group.kills(), 0);
        assert!(daemon.stop(Signal::TERM).unwrap().success());
    }
}

#[test]
fn oom_killed_compiler_is_reported_and_network_kept() {
    let group = MemoryLimit::new(LITTLE);
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let host = cluster.host("a");
    let plugins = cluster.lab().directory().join("plugins");
    // The existing network works, and must survive while the next daemon cannot start.
    let peers = Peer::range(0, 3);
    cluster.etcd().put_all(&Peer::leases(&peers), 3).unwrap();
    let mut before = host.start(cluster.heddled(&host)).unwrap();
    before.wait_ready().unwrap();
    before.stop(Signal::TERM).unwrap();
    let state = host.kernel_state().unwrap();

    // The same plugin as a file, extended until compiling it takes more memory than there is.
    heddle_lab::run(Command::new(heddle()).args(["plugin", "export"]).arg(&plugins)).unwrap();
    let file = plugins.join("vxlan.wasm");
    let component = std::fs::read(&file).unwrap();
    let function = "(func (param i32) (result i32) local.get 0 i32.const 7 i32.mul)";
    let module = format!("(module {})", function.repeat(50_000));
    std::fs::write(&file, graft(&component, &module, 1)).unwrap();
    let policy = plugins.join("plugins.toml");
    std::fs::write(&policy, "[plugin.vxlan]\nudp-ports = [\"1-65535\"]\n").unwrap();
    let mut command = cluster.heddled(&host);
    command.arg(format!("--plugin-dir={}", plugins.display()));
    command.arg(format!("--plugin-policy={}", policy.display()));
    let mut daemon = host.start(group.wrap(&command)).unwrap();
    let limited = format!("control group {} is limited to 32 MiB", group.name());
    let reason = ["vxlan", "killed by signal 9 (SIGKILL)", "OOM killer", &limited, "MemoryMax="];
    wait_unready(&daemon, &reason, NOTICED);
    // The compiler is retried, and the error logged once.
    let kills = group.kills();
    wait_until("another attempt", TRIED_AGAIN, || match group.kills() {
        now if now > kills => Ok(()),
        now => Err(format!("{now} kills")),
    })
    .unwrap();
    daemon.check_running().unwrap();
    assert_eq!(daemon.log().matches("SIGKILL").count(), 1, "{}", daemon.log());
    assert_eq!(host.kernel_state().unwrap(), state);
    assert!(daemon.stop(Signal::TERM).unwrap().success());
}
