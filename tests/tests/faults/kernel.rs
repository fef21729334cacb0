//! Changes to kernel objects by other programs, and failures of the kernel itself.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use heddle_lab::{Daemon, Families, Host, Monitor, RaisedOnDrop, Signal, wait_until};
use heddle_tests::{
    Cluster, HEALED, NETWORK_FOR_PEERS, Node, Peer, Recovery, SOON, Snapshot, Trio, wait_unready,
};

/// MAC of no VTEP.
const STRANGER: &str = "02:00:00:00:66:66";

/// Objects through which other nodes reach a node: its route, neighbour and FDB entry.
struct Ways {
    subnet: String,
    vtep: String,
    mac: String,
}

impl Ways {
    fn to(cluster: &Cluster, node: &Node) -> Self {
        let subnet = cluster.subnets(node)[0];
        let mac = node.link("flannel.1")["address"].as_str().unwrap().to_owned();
        Self { subnet: subnet.to_string(), vtep: subnet.network().to_string(), mac }
    }

    /// Deletes all of them on another node.
    fn delete_on(&self, node: &Node) {
        let Self { subnet, vtep, mac } = self;
        let lines = format!("route del {subnet}\nneigh del {vtep} dev flannel.1\n");
        node.host.namespace().batch("ip", &lines).unwrap();
        node.bridge(&format!("fdb del {mac} dev flannel.1 self"));
    }
}

#[test]
fn row_01_what_vanishes_is_back_within_a_second() {
    let trio = Trio::new();
    let [a, _, c] = &trio.nodes;
    let before = Snapshot::of(a);

    // One peer's objects: the repair touches no object of another peer.
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    let monitor = Monitor::start(a.host.namespace()).unwrap();
    let ways = Ways::to(&trio.cluster, c);
    ways.delete_on(a);
    let recovery = Recovery::from("row 1");
    recovery.wait("a route, a neighbour and an FDB entry", HEALED, || before.compare(a));
    thread::sleep(HEALED);
    let lines = monitor.drain(a.host.namespace()).unwrap();
    let (its, others): (Vec<_>, Vec<_>) = lines
        .into_iter()
        // The kernel assigns the device's link-local address asynchronously.
        .filter(|line| line.contains("flannel.1") && !line.contains(" fe80:"))
        .partition(|line| {
            [&ways.subnet, &ways.vtep, &ways.mac].iter().any(|its| line.contains(*its))
        });
    assert!(its.len() >= 6, "{its:#?}");
    assert!(others.is_empty(), "{others:#?}");
    flows.lost_nothing();

    // The device with all its objects. Traffic that does not use it is not disturbed.
    let flows = trio.flows(&[(1, 2)]);
    a.ip("link del flannel.1");
    let recovery = Recovery::from("row 1");
    recovery.wait("the device with all that is on it", HEALED, || before.compare(a));
    trio.reaches(1).unwrap();
    trio.reaches(2).unwrap();
    flows.lost_nothing();
    before.compare(a).unwrap();
}

#[test]
fn row_02_objects_stale_at_start_are_gone_at_readiness() {
    let mut trio = Trio::new();
    let gone = Peer::range(1, 20);
    let gone: Vec<_> = gone.iter().map(|peer| format!("10.244.{}.0-24", 200 + peer.0)).collect();
    let value = |number: usize| {
        format!(
            r#"{{"PublicIP":"172.16.0.{number}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{number:02x}"}}}}"#
        )
    };
    let before = Snapshot::of(&trio.nodes[0]);
    for (number, key) in gone.iter().enumerate() {
        trio.cluster.put_lease(key, &value(number + 1));
    }
    let all = before.objects.len() + 3 * gone.len();
    wait_until("peers", SOON, || match trio.nodes[0].host.kernel_state().unwrap().len() {
        found if found == all => Ok(()),
        found => Err(format!("{found} objects instead of {all}")),
    })
    .unwrap();

    let flows = trio.flows(&[(0, 1), (0, 2), (1, 2)]);
    assert_eq!(trio.nodes[0].stop(Signal::KILL), None);
    for key in &gone {
        trio.cluster.delete_lease(key);
    }
    let a = &trio.nodes[0];
    // The objects have no daemon. Another program adds garbage to our device, and a route of its
    // own inside the overlay.
    assert_eq!(a.host.kernel_state().unwrap().len(), all);
    a.bridge(&format!("fdb append {STRANGER} dev flannel.1 dst 172.16.9.9 self permanent"));
    a.ip(&format!("neigh add 10.244.199.0 lladdr {STRANGER} dev flannel.1 nud permanent"));
    a.ip("route add 10.244.198.0/24 via 192.168.255.254 dev eth0 proto static");
    flows.go_on();

    let recovery = Recovery::from("row 2");
    trio.cluster.restart(&mut trio.nodes[0]);
    // READY means that the cleanup is complete.
    let mut after = Snapshot::of(&trio.nodes[0]);
    recovery.done("from the start of the daemon to readiness");
    after.objects.routes.retain(|route| route.dst != "10.244.198.0/24");
    assert_eq!(
        after.objects.routes.len() + 1,
        trio.nodes[0].host.kernel_state().unwrap().routes.len()
    );
    assert_eq!(after, before);
    flows.lost_nothing();
}

#[test]
fn row_09_a_device_made_anew_has_its_mac_and_every_peer_again() {
    let trio = Trio::new();
    let [a, b, _] = &trio.nodes;
    let snapshots = trio.nodes.each_ref().map(Snapshot::of);
    let leases = trio.cluster.etcd().leases().unwrap();
    let flows = trio.flows(&[(1, 2)]);
    // Paused, because the daemon would repair the device before it is replaced.
    a.signal(Signal::STOP);
    let anew = format!(
        "link del flannel.1\n\
         link add name flannel.1 address {STRANGER} type vxlan id 1 local {} dev eth0 dstport 8472 nolearning\n\
         link set flannel.1 up\n",
        a.host.v4()
    );
    a.host.namespace().batch("ip", &anew).unwrap();
    a.signal(Signal::CONT);
    let recovery = Recovery::from("row 9");
    recovery.wait("all peers behind the same MAC", HEALED, || snapshots[0].compare(a));
    trio.reaches(1).unwrap();
    trio.reaches(2).unwrap();
    // No lease had to change.
    assert_eq!(trio.cluster.etcd().leases().unwrap(), leases);
    snapshots[1].compare(b).unwrap();
    flows.lost_nothing();
    for (snapshot, node) in snapshots.iter().zip(&trio.nodes) {
        snapshot.compare(node).unwrap();
    }
}

#[test]
fn row_10_a_mac_that_udev_rewrites_is_put_right() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(1, 2)]);

    // Like udev: as soon as the device exists, which is before the daemon is ready.
    trio.nodes[0].stop(Signal::TERM);
    trio.nodes[0].ip("link del flannel.1");
    let host = &trio.nodes[0].host;
    let mut daemon = host.start(trio.cluster.heddled(host)).unwrap();
    let rewrite = format!("link set flannel.1 address {STRANGER}");
    wait_until("a device", SOON, || host.namespace().ip(&rewrite)).unwrap();
    let recovery = Recovery::from("row 10");
    daemon.wait_ready().unwrap();
    let a = &trio.nodes[0];
    recovery.wait("rewritten while the daemon starts", SOON, || before.compare(a));
    trio.reaches(1).unwrap();

    // And at any later time.
    for _ in 0..5 {
        a.ip(&rewrite);
        let recovery = Recovery::from("row 10");
        recovery.wait("rewritten while the daemon runs", HEALED, || before.compare(a));
    }
    trio.reaches(2).unwrap();
    flows.lost_nothing();
    before.compare(a).unwrap();
}

#[test]
fn row_12_what_the_kernel_refuses_keeps_nothing_else_waiting() {
    let mut trio = Trio::on(Cluster::with_backend(Families::V4, "host-gw"), &[]);
    let log = trio.nodes[0].daemon().log_path().to_owned();
    let a = &trio.nodes[0];
    let before = a.host.kernel_state().unwrap();
    let flows = trio.flows(&[(0, 1), (0, 2), (1, 2)]);
    let lease = |address: &str| {
        format!(r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"host-gw"}}"#)
    };
    let route = |number: u8| {
        let state = a.host.kernel_state().unwrap();
        state.route(&format!("10.244.{number}.0/24")).cloned().ok_or("there is none")
    };

    // The kernel rejects the network's broadcast address as a gateway.
    let bad: Vec<u8> = (200..220).collect();
    for number in &bad {
        trio.cluster.put_lease(&format!("10.244.{number}.0-24"), &lease("192.168.255.255"));
    }
    wait_until("a complaint", SOON, || {
        let log = std::fs::read_to_string(&log).unwrap();
        if log.contains("10.244.200.0") { Ok(()) } else { Err(log) }
    })
    .unwrap();
    // Other peers come and go meanwhile.
    for number in 220..225 {
        trio.cluster
            .put_lease(&format!("10.244.{number}.0-24"), &lease(&format!("192.168.77.{number}")));
        let recovery = Recovery::from("row 12");
        recovery.wait("a good peer among twenty that the kernel refuses", SOON, || route(number));
    }
    assert!(bad.iter().all(|number| route(*number).is_err()));
    // The lease of one of them is corrected.
    trio.cluster.put_lease("10.244.200.0-24", &lease("192.168.77.200"));
    let recovery = Recovery::from("row 12");
    recovery.wait("a peer that was put right", SOON, || route(200));
    for number in 200..225 {
        trio.cluster.delete_lease(&format!("10.244.{number}.0-24"));
    }
    wait_until("the routes of before", SOON, || match a.host.kernel_state().unwrap() {
        now if now == before => Ok(()),
        now => Err(format!("{now:#?}")),
    })
    .unwrap();
    flows.lost_nothing();
}

#[test]
fn row_13_ready_means_whole_plan_after_device_was_in_the_way() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    cluster.etcd().put_all(&Peer::leases(&Peer::range(0, 3000)), 100).unwrap();
    let host = cluster.host("a");
    // A foreign device, which the daemon leaves alone.
    host.namespace().ip("link add flannel.1 type bridge").unwrap();
    let mut node = cluster.starting_node_on(host, &[]);
    wait_unready(node.daemon(), &["kernel: ", "flannel.1"], SOON);
    // The retries have backed off to seconds by now.
    thread::sleep(Duration::from_secs(4));
    node.ip("link delete flannel.1");
    let recovery = Recovery::from("row 13, a device in the way");
    node.daemon().wait_ready().unwrap();
    let found = node.objects("flannel.1");
    recovery.done("ready");
    let planned = cluster.planned(&node.host);
    assert_eq!(found.len(), planned.len());
    assert_eq!(found, planned);
}

/// Returns the command line of a second daemon on a host, for another network with its own device.
fn second(cluster: &Cluster, host: &Host) -> Command {
    let mut command = cluster.heddled(host);
    command.args(["--etcd-prefix=/other", "--healthz-port=0", "--ip-masq"]);
    for (flag, file) in [("--subnet-file", "other.env"), ("--control-socket", "other.sock")] {
        command.arg(format!("{flag}={}", host.directory().join(file).display()));
    }
    command
}

/// Returns the host's firewall rules, without counters and comments.
fn rules(host: &Host) -> Vec<String> {
    let printed = host.namespace().run(Command::new("iptables-nft-save")).unwrap();
    let lines = printed.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}

/// Returns only the rules, without chains, as a set: the order of the two daemons' rules is
/// arbitrary.
fn appended(lines: Vec<String>) -> BTreeSet<String> {
    lines.into_iter().filter(|line| line.starts_with("-A")).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
fn row_14_rules_have_no_gap_and_two_daemons_keep_each_others() {
    let cluster = Cluster::new(Families::V4);
    let other = r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan","VNI":99}}"#;
    cluster.etcd().put("/other/config", other).unwrap();
    let mut trio = Trio::on(cluster, &["--ip-masq"]);
    // From now on only the daemons' forward rules let containers reach each other.
    for node in &trio.nodes {
        let mut command = Command::new("iptables-nft");
        command.args(["-P", "FORWARD", "DROP"]);
        node.host.namespace().run(command).unwrap();
    }
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    let command = || second(&trio.cluster, &trio.nodes[0].host);
    let mut other = Some(trio.nodes[0].host.start(command()).unwrap());
    other.as_mut().unwrap().wait_ready().unwrap();
    let both = rules(&trio.nodes[0].host);
    for network in ["10.244.0.0/16", "10.99.0.0/16"] {
        let its = both.iter().filter(|line| line.contains(network));
        assert!(its.clone().any(|line| line.contains("MASQUERADE")), "{both:#?}");
        assert!(its.clone().any(|line| line.contains("ACCEPT")), "{both:#?}");
    }

    // Restart each daemon several times, while a thread reads the rules.
    let done = AtomicBool::new(false);
    let [ref mut a, ..] = trio.nodes;
    let namespace = a.host.namespace().name().to_owned();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut readings = 0;
            while !done.load(Ordering::Relaxed) {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace, "iptables-nft-save"]);
                let printed = heddle_lab::run(&mut command).unwrap();
                for line in &both {
                    assert!(printed.contains(line), "without `{line}`:\n{printed}");
                }
                readings += 1;
            }
            readings
        });
        let over = RaisedOnDrop(&done);
        for _ in 0..3 {
            a.stop(Signal::KILL);
            trio.cluster.restart(a);
            drop(other.take());
            other
                .insert(a.host.start(second(&trio.cluster, &a.host)).unwrap())
                .wait_ready()
                .unwrap();
        }
        drop(over);
        let readings = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(readings >= 10, "only {readings} readings");
    });
    flows.lost_nothing();

    // Another program flushes everything. Both daemons are paused, because they would restore the
    // rules before the check.
    let (a, other) = (&trio.nodes[0], other.unwrap());
    let flows = trio.flows(&[(1, 2)]);
    let both = appended(both);
    a.signal(Signal::STOP);
    other.signal(Signal::STOP).unwrap();
    let mut flush = Command::new("nft");
    flush.args(["flush", "ruleset"]);
    a.host.namespace().run(flush).unwrap();
    assert!(appended(rules(&a.host)).is_empty());
    a.signal(Signal::CONT);
    other.signal(Signal::CONT).unwrap();
    let recovery = Recovery::from("row 14");
    recovery.wait("all rules of both daemons", SOON, || match appended(rules(&a.host)) {
        now if now == both => Ok(()),
        now => Err(format!("{now:#?} instead of {both:#?}")),
    });
    flows.lost_nothing();
}

#[test]
fn fault_the_daemon_is_paused_while_objects_are_deleted() {
    let trio = Trio::new();
    let [a, _, c] = &trio.nodes;
    let before = Snapshot::of(a);
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    a.signal(Signal::STOP);
    Ways::to(&trio.cluster, c).delete_on(a);
    a.bridge(&format!("fdb append {STRANGER} dev flannel.1 dst 172.16.9.9 self permanent"));
    // A peer joins as well.
    let peer = r#"{"PublicIP":"172.16.0.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}"#;
    trio.cluster.put_lease("10.244.250.0-24", peer);
    thread::sleep(Duration::from_secs(4));
    assert!(before.compare(a).is_err());
    flows.go_on();

    a.signal(Signal::CONT);
    let recovery = Recovery::from("paused");
    let complete = || {
        let mut now = Snapshot::of(a);
        let new =
            now.objects.route("10.244.250.0/24").cloned().ok_or("no route to the new peer")?;
        now.objects.routes.remove(&new);
        now.objects.neighbours.retain(|found| found.dst != "10.244.250.0");
        now.objects.fdb.retain(|found| found.mac != "02:00:00:00:00:09");
        if now == before { Ok(()) } else { Err(format!("{now:#?}")) }
    };
    recovery.wait("all objects, without what is nobody's and with the new peer", SOON, complete);
    flows.lost_nothing();
}

/// Returns the number of netlink events that the kernel has dropped because the process did not
/// read fast enough.
fn dropped_events(pid: u32) -> u64 {
    /// Multicast groups that the daemon subscribes to: links, neighbours, addresses and routes.
    const GROUPS: &str = "00000555";
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap();
    let mut lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let column = |name: &str| header.iter().position(|title| *title == name).unwrap();
    let listening: Vec<_> = lines.filter(|fields| fields[column("Groups")] == GROUPS).collect();
    let [socket] = &listening[..] else { panic!("who listens?\n{sockets}") };
    socket[column("Drops")].parse().unwrap()
}

#[test]
fn fault_more_kernel_events_than_anybody_can_read() {
    /// Number of foreign devices. Each causes an event when added and one when deleted, each of 832
    /// bytes in the queue, which holds 32 MiB.
    const FOREIGN: u32 = 30_000;
    let mut trio = Trio::new();
    let pid = trio.nodes[0].daemon().pid();
    let [a, _, c] = &trio.nodes;
    let before = Snapshot::of(a);
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    let foreign = |verb: &str| -> String {
        let line = |number: u32| {
            let [_, high, middle, low] = number.to_be_bytes();
            format!("route {verb} blackhole 172.{}.{middle}.{low}\n", 64 + high)
        };
        (0..FOREIGN).map(line).collect()
    };
    let links: String = (0..50).map(|n| format!("link add name x{n} type bridge\n")).collect();
    let no_links: String = (0..50).map(|n| format!("link del x{n}\n")).collect();

    assert_eq!(dropped_events(pid), 0);
    a.signal(Signal::STOP);
    for lines in [links, foreign("add"), foreign("del"), no_links] {
        a.host.namespace().batch("ip", &lines).unwrap();
    }
    // The events of this deletion are dropped.
    Ways::to(&trio.cluster, c).delete_on(a);
    assert!(dropped_events(pid) > 0, "the buffer has held all of it");
    a.signal(Signal::CONT);
    let recovery = Recovery::from("events lost");
    recovery.wait("all objects, one of which went unheard", HEALED, || before.compare(a));
    // Afterwards it receives events again.
    Ways::to(&trio.cluster, c).delete_on(a);
    let recovery = Recovery::from("row 1");
    recovery.wait("a route, a neighbour and an FDB entry, after lost events", HEALED, || {
        before.compare(a)
    });
    flows.lost_nothing();
}

/// Starts a node whose daemon's command line is wrapped.
fn started(cluster: &Cluster, name: &str, wrap: impl FnOnce(Command) -> Command) -> (Host, Daemon) {
    let host = cluster.host(name);
    let mut daemon = host.start(wrap(cluster.heddled(&host))).unwrap();
    daemon.wait_ready().unwrap();
    (host, daemon)
}

/// Deletes the node's routes, and waits until they are restored.
fn heals(fault: &str, what: &str, host: &Host) {
    let before = host.kernel_state().unwrap();
    assert!(!before.routes.is_empty());
    host.namespace().ip("route flush dev flannel.1").unwrap();
    let recovery = Recovery::from(fault);
    recovery.wait(what, HEALED, || match host.kernel_state().unwrap() {
        now if now == before => Ok(()),
        now => Err(format!("{now:#?}")),
    });
}

/// The kernel cannot give a process its own realtime clock. libfaketime (Debian's package)
/// intercepts the C library's calls and reads the offset from a file; the monotonic clock is left
/// as it is. It is preloaded by its path, for the dynamic linker's sake.
#[test]
fn fault_the_clock_jumps() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(1, 20);
    cluster.etcd().put_all(&Peer::leases(&peers), 20).unwrap();
    let offset = cluster.lab().directory().join("offset");
    std::fs::write(&offset, "+0\n").unwrap();
    let library =
        format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    assert!(std::path::Path::new(&library).is_file(), "{library}: install libfaketime");
    let (host, daemon) = started(&cluster, "a", |mut command| {
        command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &offset);
        command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
        command
    });
    let lease = cluster.find_lease("a").unwrap();
    let years = || -> BTreeSet<String> {
        daemon.log().lines().filter_map(|line| Some(line.split_once('-')?.0.to_owned())).collect()
    };
    let mut so_far = years();
    assert_eq!(so_far.len(), 1, "{}", daemon.log());
    // A lease lasts for a day.
    for jump in ["+3650d", "-3650d"] {
        std::fs::write(&offset, format!("{jump}\n")).unwrap();
        heals("clock", "routes, after a jump of ten years", &host);
        // The log's timestamps show that the daemon has seen the jump.
        let now = years();
        assert!(now.len() > so_far.len(), "{}", daemon.log());
        so_far = now;
        thread::sleep(HEALED);
        assert_eq!(cluster.find_lease("a").unwrap(), lease);
        assert_eq!(daemon.health("/readyz").unwrap().0, 200);
    }
}

/// The kernel can give a process its own monotonic and boot clocks, with an offset that is set
/// before the process starts and never jumps.
#[test]
fn fault_a_machine_has_been_up_for_a_century() {
    /// In seconds. The kernel's limit is 146 years.
    const UPTIME: u64 = 100 * 365 * 86_400;
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(1, 20);
    cluster.etcd().put_all(&Peer::leases(&peers), 20).unwrap();
    let (host, daemon) = started(&cluster, "a", |daemon| {
        let mut command = Command::new("unshare");
        command.args(["--time", &format!("--monotonic={UPTIME}"), &format!("--boottime={UPTIME}")]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        command
    });
    let clocks = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/time")).unwrap();
    assert_ne!(clocks(&daemon.pid().to_string()), clocks("self"));
    heals("clock", "routes, on a machine that has been up for a century", &host);
    assert_eq!(daemon.health("/readyz").unwrap().0, 200);
}
