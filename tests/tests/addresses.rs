//! The interface, the address and the MTU that a node chooses, for each row of the table in
//! `docs/operation.md`, and whether it keeps its subnet.

use std::path::Path;
use std::time::Duration;

use heddle_lab::{Daemon, Families, Host, Signal, wait_until};
use heddle_tests::{Cluster, SOON, wait_ready, wait_unready};
use serde_json::Value;

/// The page with the table, and the heading above it.
const PAGE: &str = "../docs/operation.md";
const HEADING: &str = "### Addresses and what the node does with them";

/// Time limit for a start, during which an address may have to be verified.
const START: Duration = Duration::from_secs(30);

/// The time at which the ordinary host, with the address ending in 7 and the default route on eth0,
/// gets into the situation of a row.
#[derive(Clone, Copy)]
enum When {
    /// While the daemon is stopped.
    Stopped,
    /// While the daemon runs: it ends with exit code 1, and is started again.
    Running,
}

/// A row of the table.
struct Row {
    situation: &'static str,
    interface: &'static str,
    address: &'static str,
    mtu: &'static str,
    subnet: &'static str,
    families: Families,
    when: When,
    /// Commands for `ip` on the host.
    commands: &'static [&'static str],
    /// Files below `/proc/sys/net` and their values, set before the commands.
    settings: &'static [(&'static str, &'static str)],
    /// Flags of the second start.
    flags: &'static [&'static str],
    /// Texts of the reason for which the node is not ready first, or at all.
    unready: &'static [&'static str],
}

/// A row in which the ordinary host stays as it is.
const ORDINARY: Row = Row {
    situation: "",
    interface: "`eth0`",
    address: "192.168.0.7",
    mtu: "1450",
    subnet: "kept",
    families: Families::V4,
    when: When::Stopped,
    commands: &[],
    settings: &[],
    flags: &[],
    unready: &[],
};

/// A row with an overlay of IPv6 only. The store is reached by IPv4, because the kernel sends nothing
/// from a tentative address.
const V6: Row = Row { address: "fd00::7", mtu: "1430", families: Families::V6, ..ORDINARY };

const ROWS: &[Row] = &[
    Row {
        situation: "several addresses, 192.168.0.7 the first",
        commands: &["addr add 192.168.0.8/16 dev eth0"],
        ..ORDINARY
    },
    Row {
        situation: "reordered: 192.168.0.8 is the first now",
        commands: &[
            "addr flush dev eth0",
            "addr add 192.168.0.8/16 dev eth0",
            "addr add 192.168.0.7/16 dev eth0",
            "route add default via 192.168.255.254 dev eth0",
        ],
        ..ORDINARY
    },
    Row {
        situation: "renumbered while stopped",
        address: "192.168.0.9",
        commands: &[
            "addr flush dev eth0",
            "addr add 192.168.0.9/16 dev eth0",
            "route add default via 192.168.255.254 dev eth0",
        ],
        ..ORDINARY
    },
    Row {
        situation: "renumbered while running",
        address: "192.168.0.9",
        when: When::Running,
        commands: &[
            "addr flush dev eth0",
            "addr add 192.168.0.9/16 dev eth0",
            "route add default via 192.168.255.254 dev eth0",
        ],
        ..ORDINARY
    },
    Row {
        situation: "secondary address, 192.168.0.7 still there",
        commands: &["addr add 192.168.0.8/24 dev eth0", "addr add 192.168.0.9/24 dev eth0"],
        ..ORDINARY
    },
    Row {
        situation: "link-local 169.254.7.7 before the other one",
        commands: &[
            "addr flush dev eth0",
            "addr add 169.254.7.7/16 dev eth0",
            "addr add 192.168.0.7/16 dev eth0",
            "route add default via 192.168.255.254 dev eth0",
        ],
        ..ORDINARY
    },
    Row {
        situation: "temporary address (RFC 8981) beside the stable one",
        settings: &[("ipv6/conf/eth0/use_tempaddr", "2")],
        commands: &[
            "addr del fd00::7/64 dev eth0",
            "addr add fd00::7/64 dev eth0 nodad mngtmpaddr valid_lft 9000 preferred_lft 9000",
            "-6 route replace default via fd00::ffff dev eth0",
        ],
        ..V6
    },
    Row {
        situation: "deprecated address and another one",
        commands: &[
            "addr add fd00::8/64 dev eth0 nodad",
            "addr change fd00::7/64 dev eth0 preferred_lft 0",
        ],
        ..V6
    },
    Row {
        situation: "deprecated address and no other",
        commands: &["addr change fd00::7/64 dev eth0 preferred_lft 0"],
        ..V6
    },
    Row {
        situation: "tentative address",
        settings: &[("ipv6/conf/eth0/dad_transmits", "4")],
        commands: &[
            "addr del fd00::7/64 dev eth0",
            "addr add fd00::7/64 dev eth0",
            "-6 route replace default via fd00::ffff dev eth0",
        ],
        unready: &["underlay: interface eth0: fd00::7 is tentative"],
        ..V6
    },
    Row {
        situation: "`/32` with a route to the gateway",
        commands: &[
            "addr flush dev eth0",
            "addr add 192.168.0.7/32 dev eth0",
            "route add 192.168.0.0/16 dev eth0",
            "route add default via 192.168.255.254 dev eth0",
        ],
        ..ORDINARY
    },
    Row {
        situation: "point-to-point: 192.168.0.7 peer 192.168.255.254",
        commands: &[
            "addr flush dev eth0",
            "addr add 192.168.0.7 peer 192.168.255.254/32 dev eth0",
            "route add 192.168.0.0/16 via 192.168.255.254 dev eth0",
            "route add 192.168.0.1 dev eth0",
            "route add default via 192.168.255.254 dev eth0",
        ],
        ..ORDINARY
    },
    Row {
        situation: "on `lo`, behind `eth0` (MTU 1500) and `eth1` (MTU 1400); `--iface=lo`",
        interface: "`lo`",
        mtu: "1350",
        commands: &[
            "link add eth1 mtu 1400 type veth peer name other mtu 1400",
            "link set other up",
            "link set eth1 up",
            "addr flush dev eth0",
            "addr add 192.168.0.7/32 dev lo",
            "route add 192.168.0.0/16 dev eth0",
            "route add default nexthop via 192.168.255.254 dev eth0 nexthop via 192.168.255.253 dev eth1 onlink",
        ],
        flags: &["--iface=lo"],
        ..ORDINARY
    },
    Row {
        situation: "on `lo`, no default route; `--iface=lo`",
        interface: "`lo`",
        commands: &[
            "addr flush dev eth0",
            "addr add 192.168.0.7/32 dev lo",
            "route add 192.168.0.0/16 dev eth0",
        ],
        flags: &["--iface=lo"],
        ..ORDINARY
    },
    Row {
        situation: "on a bridge, to which `eth0` belongs",
        interface: "`br0`",
        commands: &[
            "link add br0 type bridge forward_delay 0",
            "link set eth0 master br0",
            "link set br0 up",
            "addr flush dev eth0",
            "addr add 192.168.0.7/16 dev br0",
            "route add default via 192.168.255.254 dev br0",
        ],
        ..ORDINARY
    },
    Row {
        situation: "on our own devices only: `--iface-regex='^10\\.'` matches `flannel.1` and `docker0`",
        interface: "none",
        address: "none",
        mtu: "–",
        commands: &[
            "link add docker0 type bridge",
            "addr add 10.244.8.1/24 dev docker0",
            "link set docker0 up",
        ],
        flags: &["--iface-regex=^10\\."],
        unready: &[
            "underlay: --iface-regex ^10\\. selects flannel.1, but it is a device of an overlay",
        ],
        ..ORDINARY
    },
    Row {
        situation: "default route via a next-hop object",
        commands: &[
            "route del default",
            "nexthop add id 7 via 192.168.255.254 dev eth0",
            "route add default nhid 7",
        ],
        ..ORDINARY
    },
    Row {
        situation: "the same with `net.ipv4.nexthop_compat_mode=0`",
        settings: &[("ipv4/nexthop_compat_mode", "0")],
        commands: &[
            "route del default",
            "nexthop add id 7 via 192.168.255.254 dev eth0",
            "route add default nhid 7",
        ],
        ..ORDINARY
    },
    Row {
        situation: "two default routes, that of `br0` with the lower metric",
        interface: "`br0`",
        address: "192.168.77.7",
        commands: &[
            "link add br0 type bridge",
            "link set br0 up",
            "addr add 192.168.77.7/24 dev br0",
            "route del default",
            "route add default via 192.168.255.254 dev eth0 metric 100",
            "route add default via 192.168.77.254 dev br0 metric 50",
        ],
        ..ORDINARY
    },
    Row {
        situation: "default route of type `unreachable` before that of `eth0`",
        commands: &[
            "route del default",
            "route add unreachable default metric 50",
            "route add default via 192.168.255.254 dev eth0 metric 100",
        ],
        ..ORDINARY
    },
    Row {
        situation: "no default route and no flag",
        interface: "none",
        address: "none",
        mtu: "–",
        commands: &["route del default"],
        ..ORDINARY
    },
];

/// The outcome of a start.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    interface: String,
    address: String,
    mtu: String,
}

/// Returns the lease of the host, which has to be the only one with this public address.
fn lease(cluster: &Cluster, host: &Host) -> (String, Value) {
    let leases = cluster.etcd().leases().unwrap();
    let environment = host.subnet_env().unwrap();
    let subnet = environment.subnets.first().unwrap().trunc();
    let key = format!("{}-{}", subnet.addr(), subnet.prefix_len());
    let found = leases.into_iter().find(|(found, _)| found.contains(&key));
    let (key, value) = found.unwrap_or_else(|| panic!("no lease for {subnet}"));
    (key, serde_json::from_str(&value).unwrap())
}

fn outcome(cluster: &Cluster, host: &Host, families: Families) -> Outcome {
    let (device, field) = match families {
        Families::V6 => ("flannel-v6.1", "PublicIPv6"),
        _ => ("flannel.1", "PublicIP"),
    };
    let links: Vec<Value> =
        host.namespace().json("ip", &format!("-d -j link show {device}")).unwrap();
    let link = links[0]["link"].as_str().or(links[0]["linkinfo"]["info_data"]["link"].as_str());
    let address = lease(cluster, host).1[field].as_str().unwrap().to_owned();
    assert_eq!(
        links[0]["linkinfo"]["info_data"]
            [if families == Families::V6 { "local6" } else { "local" }],
        address
    );
    let mtu = host.subnet_env().unwrap().mtu.unwrap().to_string();
    assert_eq!(links[0]["mtu"].to_string(), mtu);
    Outcome { interface: format!("`{}`", link.unwrap()), address, mtu }
}

fn start(cluster: &Cluster, host: &Host, flags: &[&str]) -> Daemon {
    let mut command = cluster.heddled(host);
    command.args(flags);
    host.start(command).unwrap()
}

/// Brings the host into the row's situation.
fn change(row: &Row, host: &Host) {
    for (path, value) in row.settings {
        host.namespace().set_sysctl(path, value).unwrap();
    }
    for command in row.commands {
        host.namespace().ip(command).unwrap_or_else(|error| panic!("{}: {error}", row.situation));
    }
}

/// Checks a row on a host of its own.
fn check(row: &Row) {
    let Row { situation, families, .. } = row;
    let cluster = Cluster::with_config(Families::Dual, Some(&families.config()));
    let host = cluster.lab().numbered_host("a", 7).unwrap();
    let mut daemon = start(&cluster, &host, &[]);
    daemon.wait_ready().unwrap();
    let before = lease(&cluster, &host).0;
    match row.when {
        When::Stopped => {
            daemon.stop(Signal::TERM).unwrap();
            change(row, &host);
        }
        When::Running => {
            change(row, &host);
            assert_eq!(daemon.wait_exit(START).unwrap().code(), Some(1), "{situation}");
        }
    }
    let mut daemon = start(&cluster, &host, row.flags);
    if row.interface == "none" {
        if row.unready.is_empty() {
            assert_eq!(daemon.wait_exit(START).unwrap().code(), Some(1), "{situation}");
            assert!(daemon.log().contains("--iface"), "{situation}");
        } else {
            wait_unready(&daemon, row.unready, START);
        }
        let after = cluster.etcd().leases().unwrap();
        assert!(after.len() == 1 && after.contains_key(&before), "{situation}: {after:?}");
        return;
    }
    if !row.unready.is_empty() {
        daemon.wait_log(row.unready, START).unwrap();
    }
    daemon.wait_ready_within(START).unwrap();
    let expected = Outcome {
        interface: row.interface.to_owned(),
        address: row.address.to_owned(),
        mtu: row.mtu.to_owned(),
    };
    assert_eq!(outcome(&cluster, &host, *families), expected, "{situation}");
    let subnet = if lease(&cluster, &host).0 == before { "kept" } else { "new" };
    assert_eq!(subnet, row.subnet, "{situation}");
}

#[test]
fn every_address_situation_is_as_documented() {
    // Most of the time is spent in waiting for daemons and the kernel.
    std::thread::scope(|scope| {
        let workers = (0..4).map(|worker| {
            let rows = ROWS.iter().skip(worker).step_by(4);
            scope.spawn(move || rows.for_each(check))
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.join().unwrap();
        }
    });
}

#[test]
fn table_of_addresses_lists_the_tested_rows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let section = page.split_once(HEADING).unwrap_or_else(|| panic!("{PAGE} lacks `{HEADING}`")).1;
    let table = section.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let documented: Vec<_> = table.take_while(|line| line.starts_with('|')).collect();
    let tested = ROWS.iter().map(|row| {
        let Row { situation, interface, address, mtu, subnet, .. } = row;
        format!("| {situation} | {interface} | {address} | {mtu} | {subnet} |")
    });
    assert_eq!(documented, tested.collect::<Vec<_>>());
}

#[test]
fn node_joins_once_its_interface_appears_after_docker0() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    for command in [
        "link add docker0 type bridge",
        "addr add 10.244.8.1/24 dev docker0",
        "link set docker0 up",
    ] {
        host.namespace().ip(command).unwrap();
    }
    let daemon = start(&cluster, &host, &["--iface-regex=^10\\."]);
    wait_unready(&daemon, &["underlay: --iface-regex ^10\\. selects docker0"], SOON);
    assert!(cluster.etcd().leases().unwrap().is_empty());
    cluster.lab().connect(&host, "eth1", &["10.5.0.1/24".to_owned()]).unwrap();
    wait_ready(&daemon, SOON);
    let found = outcome(&cluster, &host, Families::V4);
    assert_eq!((found.interface.as_str(), found.address.as_str()), ("`eth1`", "10.5.0.1"));
}

#[test]
fn public_address_inside_the_overlay_is_never_published() {
    let cluster = Cluster::new(Families::V4);
    for (number, flag) in ["--public-ip=10.244.8.1", "--public-ip=10.244.77.7"].iter().enumerate() {
        let host = cluster.host(&format!("n{number}"));
        host.namespace().ip("link add docker0 type bridge").unwrap();
        host.namespace().ip("addr add 10.244.8.1/24 dev docker0").unwrap();
        let daemon = start(&cluster, &host, &[flag]);
        let named = flag.replace('=', " ");
        wait_unready(&daemon, &["underlay: ", &named, "10.244.0.0/16"], SOON);
    }
    assert!(cluster.etcd().leases().unwrap().is_empty());
}

/// Moves a host's address to `lo`. Its eth0 keeps one of another network.
fn move_to_loopback(host: &Host, number: u8) {
    for command in [
        "addr flush dev eth0".to_owned(),
        format!("addr add 192.168.0.{number}/32 dev lo"),
        "route add 192.168.0.0/16 dev eth0".to_owned(),
        "route add default via 192.168.255.254 dev eth0".to_owned(),
    ] {
        host.namespace().ip(&command).unwrap();
    }
}

#[test]
fn nodes_with_addresses_on_lo_carry_full_packets() {
    let cluster = Cluster::new(Families::V4);
    let nodes = [7, 8].map(|number| {
        let host = cluster.lab().numbered_host(&format!("n{number}"), number.into()).unwrap();
        move_to_loopback(&host, number);
        cluster.starting_node_on(host, &["--iface=lo"])
    });
    let [mut one, mut other] = nodes;
    for node in [&mut one, &mut other] {
        node.daemon().wait_ready().unwrap();
        assert_eq!(node.host.subnet_env().unwrap().mtu, Some(1450));
    }
    let (from, to) = (one.host.container().unwrap(), other.host.container().unwrap());
    // 1450 bytes with the headers of IP and ICMP, which may not be fragmented.
    wait_until("a ping", SOON, || from.ping(to.addresses()[0], 1422)).unwrap();
}

#[test]
fn mtu_of_an_uplink_behind_lo_is_followed() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.lab().numbered_host("a", 7).unwrap();
    move_to_loopback(&host, 7);
    let mut daemon = start(&cluster, &host, &["--iface=lo"]);
    daemon.wait_ready().unwrap();
    host.namespace().ip("link set eth0 mtu 1400").unwrap();
    let told = ["WARN", "MTU of eth0 is 1400, and heddled was started with 1500"];
    daemon.wait_log(&told, SOON).unwrap();
    host.namespace().ip("link set eth0 mtu 1500").unwrap();
    daemon.wait_log(&["INFO", "MTU of eth0 is 1500 again"], SOON).unwrap();
}

#[test]
fn routes_to_peers_count_for_the_mtu_behind_lo() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.lab().numbered_host("a", 7).unwrap();
    move_to_loopback(&host, 7);
    for command in [
        "link add eth1 mtu 1300 type veth peer name other mtu 1300",
        "link set other up",
        "link set eth1 up",
        "link add eth2 mtu 1200 type veth peer name unrelated mtu 1200",
        "link set unrelated up",
        "link set eth2 up",
        "route add 203.0.113.9 dev eth1",
        "route add 198.51.100.0/24 dev eth2",
    ] {
        host.namespace().ip(command).unwrap();
    }
    let peer = r#"{"PublicIP":"203.0.113.9","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}"#;
    cluster.put_lease("10.244.9.0-24", peer);
    let mut daemon = start(&cluster, &host, &["--iface=lo"]);
    daemon.wait_ready().unwrap();
    assert_eq!(host.subnet_env().unwrap().mtu, Some(1250));
}
