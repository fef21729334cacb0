//! Malformed leases, failing plugins, and unexpected datagrams.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Families, next_datagram, wait_until};
use heddle_tests::wording::peer_left;
use heddle_tests::{Cluster, HEALED, Overlay, Packet, PlainPeer, Recovery, SOON, Snapshot, Trio};

/// Upper limit for the retry of a plugin that traps, which backs off.
const BACKED_OFF: Duration = Duration::from_secs(60);

fn key(number: u8) -> String {
    format!("10.244.{number}.0-24")
}

#[test]
fn row_11_peer_with_garbage_is_reported_and_harms_no_other() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(0, 1), (0, 2), (1, 2)]);
    let garbage = [
        // IPv6 data in an IPv4 network.
        r#"{"PublicIP":"172.16.0.1","PublicIPv6":"fd00::7","BackendType":"vxlan","BackendData":null,"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#,
        r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::7","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#,
        r#"{"PublicIP":"172.16.0.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"nobody"}}"#,
        r#"{"PublicIP":"172.16.0.4","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}}"#,
        r#"{"PublicIP":"172.16.0.5","PublicIPv6":null,"BackendType":"vxlan","BackendData":[[[[[[7]]]]]]}"#,
        r#"{"PublicIP":"172.16.0.6","PublicIPv6":null,"BackendType":"vxlan","BackendData":"\u0000"}"#,
        r#"{"PublicIP":"172.16.0.7","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":-1,"VtepMAC":7}}"#,
        "\u{0}\u{1}",
    ];
    for (number, value) in (200..).zip(garbage) {
        trio.cluster.put_lease(&key(number), value);
    }
    for number in (200..).take(garbage.len()) {
        trio.nodes[0].daemon().wait_log(&["WARN", &key(number)], SOON).unwrap();
    }
    before.compare(&trio.nodes[0]).unwrap();
    assert_eq!(trio.nodes[0].daemon().health("/readyz").unwrap().0, 200);

    // A valid record turns invalid: its plan stays in place.
    let lease = trio.cluster.lease(&trio.nodes[2]);
    let (_, its) = lease.key.rsplit_once('/').unwrap();
    let bad = lease.value.replace(r#""VtepMAC":""#, r#""VtepMAC":"garbage "#);
    assert_ne!(bad, lease.value);
    let c = trio.nodes[2].daemon();
    c.signal(heddle_lab::Signal::STOP).unwrap();
    trio.cluster.put_lease(its, &bad);
    trio.nodes[0].daemon().wait_log(&["WARN", its], SOON).unwrap();
    before.compare(&trio.nodes[0]).unwrap();
    // Its owner restores it.
    trio.nodes[2].daemon().signal(heddle_lab::Signal::CONT).unwrap();
    let recovery = Recovery::from("row 11");
    recovery.wait("the owner has put its record right", SOON, || {
        match trio.cluster.find_lease("c") {
            Some(now) if now.value == lease.value => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // A corrected record makes a peer at once.
    let right = r#"{"PublicIP":"172.16.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#;
    trio.cluster.put_lease(&key(200), right);
    let recovery = Recovery::from("row 11");
    recovery.wait("a peer whose record was put right", SOON, || {
        let found = trio.nodes[0].objects("flannel.1");
        found.route("10.244.200.0/24").cloned().ok_or("no route")
    });
    for number in (200..).take(garbage.len()) {
        trio.cluster.delete_lease(&key(number));
    }
    before.wait(&trio.nodes[0], SOON);
    flows.lost_nothing();
}

#[test]
fn row_11_trapping_plugin_is_restarted_and_keeps_its_plans() {
    let mut trio = Trio::with_rogue();
    let put = |trio: &Trio, number: u8, data: &str| {
        let value = format!(
            r#"{{"PublicIP":"192.168.100.{number}","PublicIPv6":null,"BackendType":"rogue","BackendData":{data}}}"#
        );
        trio.cluster.put_lease(&key(number), &value);
    };
    put(&trio, 200, "null");
    let route = |trio: &Trio, number: u8| {
        let state = trio.nodes[0].host.kernel_state().unwrap();
        state.route(&format!("10.244.{number}.0/24")).cloned().ok_or("there is none")
    };
    wait_until("a route", SOON, || route(&trio, 200)).unwrap();
    let before = trio.nodes[0].host.kernel_state().unwrap();
    let flows = trio.flows(&[(0, 1), (0, 2), (1, 2)]);

    // A peer that was valid before, and a new one.
    put(&trio, 200, r#""trap""#);
    put(&trio, 201, r#""hang""#);
    trio.nodes[0].daemon().wait_log(&[&key(200), "as was asked for"], SOON).unwrap();
    trio.nodes[0].daemon().wait_log(&[&key(201), "time limit"], SOON).unwrap();
    assert_eq!(trio.nodes[0].host.kernel_state().unwrap(), before);
    assert_eq!(trio.nodes[0].daemon().health("/readyz").unwrap().0, 200);
    // Other peers are planned meanwhile.
    put(&trio, 202, "null");
    let recovery = Recovery::from("row 11");
    recovery
        .wait("another peer while the plugin traps and hangs", BACKED_OFF, || route(&trio, 202));
    put(&trio, 201, "null");
    let recovery = Recovery::from("row 11");
    recovery.wait("the peer that it hung at", BACKED_OFF, || route(&trio, 201));
    for number in 201..=202 {
        trio.cluster.delete_lease(&key(number));
    }
    put(&trio, 200, "null");
    wait_until("the routes of before", SOON, || match trio.nodes[0].host.kernel_state().unwrap() {
        now if now == before => Ok(()),
        now => Err(format!("{now:#?}")),
    })
    .unwrap();
    flows.lost_nothing();
}

#[test]
fn row_18_no_packet_is_injected_and_flood_delays_no_peer() {
    /// Datagrams in a burst, one burst per millisecond: few enough for the socket buffer, so that
    /// no peer's datagram is dropped.
    const BURST: usize = 16;
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let stranger = PlainPeer::without_lease(&cluster, "stranger", 201);
    let peer = PlainPeer::join(&cluster, "peer", 202);
    let mut trio = Trio::on(cluster, &[]);
    let before = trio.nodes[0].host.kernel_state().unwrap();
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    let IpAddr::V4(inside) = trio.containers[0].addresses()[0] else { unreachable!() };
    let target = SocketAddr::new(inside.into(), 9999);
    let listener = trio.containers[0].namespace().udp_socket(target).unwrap();
    // Source addresses: a container of b, and one of the stranger's own.
    let of_b = SocketAddr::new(trio.containers[1].addresses()[0], 9999);
    let forged = [of_b, SocketAddr::new(stranger.address(Overlay::V4), 9999)]
        .map(|source| Packet::udp(source, target, b"let me in"));
    let newcomer = PlainPeer::without_lease(&trio.cluster, "newcomer", 203);
    let counters = trio.nodes[0].counters();

    let begun = Instant::now();
    let (mut strangers, mut peers) = (0_u64, 0_u64);
    // Clock since the new peer joined, and true once it has received a packet.
    let (mut recovery, mut served) = (None, false);
    while begun.elapsed() < Duration::from_secs(5) {
        for packet in forged.iter().cycle().take(BURST) {
            stranger.send_packet(&trio.nodes[0], packet);
            strangers += 1;
        }
        // A peer has a lease, but not for another's subnet.
        peer.send_packet(&trio.nodes[0], &forged[0]);
        peers += 1;
        thread::sleep(Duration::from_millis(1));
        if served || begun.elapsed() < Duration::from_secs(1) {
            continue;
        }
        if recovery.is_none() {
            recovery = Some(Recovery::from("row 18"));
            trio.cluster.put_lease(&newcomer.lease_key(), &newcomer.lease_value());
        }
        // A packet from inside shows whether the node sends to the new peer. Sending fails while
        // there is no route.
        let _ = listener.send_to(b"hello", SocketAddr::new(newcomer.address(Overlay::V4), 9));
        if newcomer.receive(Overlay::V4).is_some() {
            recovery.take().unwrap().done("a new peer during a flood");
            served = true;
        }
    }
    assert!(served, "the new peer was never served");
    assert!(strangers > 1000, "{strangers}");
    let counted = || {
        let now = trio.nodes[0].counters();
        ["spoofed_outer", "spoofed_inner"].map(|name| now[name] - counters[name])
    };
    wait_until("all of them counted", SOON, || match counted() {
        now if now == [strangers, peers] => Ok(()),
        now => Err(format!("{now:?} of {strangers} and {peers}")),
    })
    .unwrap();
    // No forged packet arrived.
    assert_eq!(next_datagram(&listener, Duration::ZERO).unwrap(), None);
    assert_eq!(trio.nodes[0].host.kernel_state().unwrap(), before);
    assert_eq!(trio.nodes[0].daemon().health("/readyz").unwrap().0, 200);
    flows.lost_nothing();
}

/// Returns texts in which a shell would run a command that creates the file.
fn commands(marker: &Path) -> Vec<String> {
    let touch = format!("touch {}", marker.display());
    ["$(X)", "`X`", "; X;", "| X", "&& X", "\\n X \\n", "'; X; '", "\\\"; X; \\\""]
        .map(|form| form.replace('X', &touch))
        .into()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
fn row_19_what_stands_in_leases_and_config_is_never_run() {
    let cluster = Cluster::new(Families::V4);
    let marker = cluster.lab().directory().join("marker");
    let mut trio = Trio::on(cluster, &["--ip-masq", "--emit=subnet-env"]);
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    for (number, command) in (200..).zip(commands(&marker)) {
        // A valid lease, with the command in the field that allows any text.
        let named = format!(
            r#"{{"PublicIP":"172.16.1.{number}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:cc:{number:02x}"}},"NodeName":"{command}"}}"#
        );
        trio.cluster.put_lease(&key(number), &named);
        trio.nodes[0]
            .daemon()
            .wait_log(&[&format!("INFO peer {}: joined: ", key(number))], SOON)
            .unwrap();
        trio.cluster.delete_lease(&key(number));
        let gone = peer_left(&key(number));
        trio.nodes[0].daemon().wait_log(&[&gone], SOON).unwrap();
        let leases = [
            format!(
                r#"{{"PublicIP":"172.16.1.{number}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{command}"}}}}"#
            ),
            format!(
                r#"{{"PublicIP":"172.16.1.{number}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{command}"}},"NodeID":"{command}","NodeName":"{command}"}}"#
            ),
            format!(
                r#"{{"PublicIP":"{command}","BackendType":"{command}","BackendData":"{command}"}}"#
            ),
            format!(
                r#"{{"PublicIP":"172.16.1.{number}","PublicIPv6":null,"BackendType":"extension","BackendData":"{command}"}}"#
            ),
            command.clone(),
        ];
        for lease in leases {
            trio.cluster.put_lease(&key(number), &lease);
        }
        trio.nodes[0].daemon().wait_log(&["WARN", &key(number)], SOON).unwrap();
    }
    let last = 200 + u8::try_from(commands(&marker).len()).unwrap();
    before.compare(&trio.nodes[0]).unwrap();

    // flannel's extension backend, which passes all of these to a shell.
    let commands =
        ["PreStartupCommand", "PostStartupCommand", "SubnetAddCommand", "SubnetRemoveCommand"]
            .map(|name| format!(r#""{name}":"touch {}""#, marker.display()));
    let extension = format!(
        r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"extension",{}}}}}"#,
        commands.join(",")
    );
    trio.cluster.store().put_config(&extension).unwrap();
    let host = trio.cluster.host("d");
    let mut daemon = host.start(trio.cluster.heddled(&host)).unwrap();
    daemon.wait_log(&["there is no plugin `extension`"], SOON).unwrap();
    assert_eq!(daemon.health("/readyz").unwrap().0, 503);
    assert!(host.kernel_state().unwrap().fdb.is_empty());
    trio.cluster.store().put_config(&Families::V4.config()).unwrap();
    let recovery = Recovery::from("row 19");
    daemon.wait_ready().unwrap();
    recovery.done("the node is ready after the config names a backend that there is");
    assert!(!marker.exists());

    for number in 200..last {
        trio.cluster.delete_lease(&key(number));
    }
    thread::sleep(HEALED);
    assert!(!marker.exists());
    trio.nodes[0].daemon().check_running().unwrap();
    flows.lost_nothing();
}
