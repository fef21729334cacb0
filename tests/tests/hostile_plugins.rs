//! The hostile plugins of `tests/hostile`, each in a real daemon on a host with state to protect:
//! the attack fails, the log names the plugin and the reason, the host is unchanged, and peers that
//! are not involved are served.

use std::fs;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Daemon, Families, Host, Lab, Signal, Store, wait_until};
use heddle_sdk::MacAddress;
use heddle_tests::wording::{NOT_A_DIRECTORY, NOT_A_FILE};
use heddle_tests::{PROTOCOL, SOON, Victim, graft, heddled, hostile, ping, victim};

/// Time limit for the log line about the problem: some calls may take a second each, on a loaded
/// machine.
const SAID: Duration = Duration::from_secs(30);

/// Limit of a daemon's peak memory, in bytes.
const MEMORY: u64 = 200 << 20;

/// Limit of a daemon's log, in bytes.
const LOG: usize = 64 << 10;

/// Time for which an idle daemon is observed, and limit of its CPU time in that.
const WATCHED: Duration = Duration::from_millis(500);
const BUSY: Duration = Duration::from_millis(100);

/// Peers with good leases, by the last but one byte of their subnets and the last of their
/// addresses.
const HONEST: [u8; 2] = [201, 202];

/// The peer whose plan is tampered with. Its key sorts before all others.
const SPOILT: u8 = 66;

/// Expected state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The node has not joined: nothing is programmed. The daemon runs.
    Nothing,
    /// The network is programmed, except for the peer whose plan is tampered with.
    WithoutPeer,
    /// The network is programmed, and the emitter's files are missing.
    WithoutFiles,
    /// The network is programmed, except for a device whose name a foreign device has.
    WithoutDevice,
    /// The network is programmed.
    Everything,
}

use Fate::{Everything, Nothing, WithoutDevice, WithoutFiles, WithoutPeer};

/// A trick, and texts of the log line about it, besides the plugin's name.
type Trick<'a> = (&'a str, &'a [&'a str]);

/// Number of tricks that one host runs, in sequence.
const TRICKS: usize = 4;

/// Number of hosts that run concurrently. With more, honest calls would exceed their time limits as
/// well.
const STAGES: usize = 4;

/// Calls `work` with each item, on several threads.
fn with_each<T: Send>(items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items);
    let next = || items.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..STAGES {
            scope.spawn(|| std::iter::from_fn(next).for_each(&work));
        }
    });
}

/// Runs plugins with their tricks, and checks the outcome of each.
fn play(lab: &Lab, fate: Fate, plays: &[(&str, &[Trick<'_>])]) {
    let stages = plays.iter().flat_map(|(name, tricks)| {
        tricks.chunks(TRICKS).enumerate().map(move |(number, tricks)| (*name, number, tricks))
    });
    with_each(stages, |(name, number, tricks)| {
        let component = fs::read(hostile(name)).unwrap();
        let stage = Stage::new(lab, &format!("{name}-{number}"), name, &component);
        for (trick, says) in tricks {
            let says: Vec<_> = says.iter().copied().chain([name]).collect();
            stage.play(trick, fate, &says, &[]);
        }
    });
}

/// A host with state to protect, and the store of its daemon.
struct Stage {
    plugin: String,
    victim: Victim,
    store: Store,
}

impl Stage {
    fn new(lab: &Lab, host: &str, plugin: &str, component: &[u8]) -> Self {
        let host = lab.host(host).unwrap();
        let path = |name: &str| host.directory().join(name);
        fs::create_dir(path("plugins")).unwrap();
        fs::write(path("plugins.toml"), POLICY).unwrap();
        let store = Store::directory(path("store")).unwrap();
        for number in [SPOILT].into_iter().chain(HONEST) {
            let data = match number {
                SPOILT => r#""hostile""#.to_owned(),
                // As with VXLAN, a record contains its node's MAC.
                _ => format!(r#"{{"VtepMAC":"{}"}}"#, end_point(number)),
            };
            put_lease(&store, number, "hostile", &data);
        }
        let stage = Self { plugin: plugin.to_owned(), victim: Victim::new(host), store };
        stage.replace(component);
        stage
    }

    fn host(&self) -> &Host {
        &self.victim.host
    }

    fn start(&self, flags: &[&str]) -> Daemon {
        let path = |name: &str| self.host().directory().join(name).display().to_string();
        let mut command = self.host().heddled(&heddled(), &self.store);
        command.arg(format!("--plugin-dir={}", path("plugins")));
        command.arg(format!("--plugin-policy={}", path("plugins.toml")));
        command.args(flags);
        self.host().start(command).unwrap()
    }

    fn put_config(&self, trick: &str) {
        // The plugin with the file tricks is an emitter, not a backend.
        let backend = if self.plugin == "files" { "vxlan" } else { self.plugin.as_str() };
        let config = format!(
            r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"{backend}","Wish":"{trick}"}}}}"#
        );
        self.store.put_config(&config).unwrap();
    }

    fn replace(&self, component: &[u8]) {
        let file = format!("plugins/{}.wasm", self.plugin);
        fs::write(self.host().directory().join(file), component).unwrap();
    }

    /// Runs a daemon whose plugin plays a trick, and waits for a log line with all of these texts.
    fn play(&self, trick: &str, fate: Fate, says: &[&str], flags: &[&str]) {
        let start = Instant::now();
        self.put_config(trick);
        let mut daemon = self.start(flags);
        let said = daemon.wait_log(says, SAID).unwrap();
        assert!(said.len() < 8 << 10, "a line of {} bytes", said.len());
        self.check_fate(&daemon, fate, says);
        self.victim.check(fate == Nothing);
        check_bounds(&mut daemon);
        assert_eq!(daemon.stop(Signal::TERM).unwrap().code(), Some(0));
        println!("{} {trick}: contained in {:?}", self.plugin, start.elapsed());
    }

    /// Runs a daemon whose plugin plays a trick with packets, some of which come from this socket.
    fn play_packets(&self, trick: &str, says: &str, socket: &UdpSocket) {
        self.put_config(trick);
        let mut daemon = self.start(&[]);
        wait_until(format!("packets: {says}"), SAID, || {
            // Neither gets an answer; there may not be a route yet.
            ping(self.host().namespace(), "-c 1 -W 0.2 10.244.201.5");
            let _ = socket.send_to(&[0x45; 64], (self.host().v4(), 8472));
            let said = |line: &str| line.contains("plugin packets") && line.contains(says);
            if daemon.log().lines().any(said) { Ok(()) } else { Err(daemon.log_tail()) }
        })
        .unwrap();
        assert_eq!(daemon.health("/healthz").unwrap().0, 200);
        self.victim.check(false);
        check_bounds(&mut daemon);
        assert_eq!(daemon.stop(Signal::TERM).unwrap().code(), Some(0));
        // The device and all its objects are gone with the daemon.
        self.victim.check(true);
    }

    fn check_fate(&self, daemon: &Daemon, fate: Fate, says: &[&str]) {
        let ready = if matches!(fate, Nothing | WithoutFiles | WithoutDevice) { 503 } else { 200 };
        wait_until(format!("/readyz saying {ready}"), SAID, || match daemon.health("/readyz") {
            Ok((status, body)) if status == ready => {
                let told = ready == 200 || says.iter().all(|text| body.contains(text));
                if told { Ok(()) } else { Err(body) }
            }
            other => Err(format!("{other:?}")),
        })
        .unwrap();
        assert_eq!(daemon.health("/healthz").unwrap().0, 200);
        let expected: Vec<_> = match fate {
            Nothing => vec![],
            WithoutPeer | WithoutFiles => HONEST.to_vec(),
            WithoutDevice | Everything => [SPOILT].into_iter().chain(HONEST).collect(),
        };
        let mut expected: Vec<_> =
            expected.into_iter().map(|number| format!("10.244.{number}.0/24")).collect();
        expected.sort();
        wait_until(format!("routes {expected:?}"), SOON, || {
            let routes = self.host().kernel_state().unwrap().routes;
            let ours = routes.iter().filter(|route| route.protocol.as_deref() == Some(PROTOCOL));
            let found: Vec<_> = ours.map(|route| route.dst.clone()).collect();
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .unwrap();
    }
}

/// Policy of these hosts' operator.
const POLICY: &str = r#"
[plugin.foreign-sysctl]
links = ["heddle*", "all"]

[plugin.files]
# Below /tmp or /dev/shm: runtime/lab/src/scratch.rs.
files = ["/*/heddle-*/*/run/", "/*/*/heddle-*/*/run/"]

[plugin.tampered-one]
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"#;

fn put_lease(store: &Store, number: u8, kind: &str, data: &str) {
    let Store::Directory(path) = store else { unreachable!("it is a directory") };
    let value = format!(
        r#"{{"PublicIP":"192.168.0.{number}","BackendType":"{kind}","BackendData":{data}}}"#
    );
    fs::write(path.join(format!("subnets/10.244.{number}.0-24")), value).unwrap();
}

/// Returns the MAC that the backend derives from a peer's public address.
fn end_point(number: u8) -> String {
    MacAddress::derived(&format!("192.168.0.{number}")).to_string()
}

/// Asserts that the daemon runs, and stays within its limits of CPU time, memory and log.
fn check_bounds(daemon: &mut Daemon) {
    daemon.check_running().unwrap();
    wait_until("a time in which the daemon is idle", Duration::from_secs(15), || {
        let before = victim::cpu_time(daemon.pid());
        thread::sleep(WATCHED);
        let busy = victim::cpu_time(daemon.pid()) - before;
        if busy < BUSY { Ok(()) } else { Err(format!("busy for {busy:?}")) }
    })
    .unwrap();
    let memory = daemon.peak_memory().unwrap();
    assert!(memory < MEMORY, "{memory} bytes");
    let log = daemon.log();
    assert!(log.len() < LOG, "{} bytes of log", log.len());
    let forged = log.lines().find(|line| line.starts_with("2026-01-01"));
    assert_eq!(forged, None);
    let control = log.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{2028}');
    assert_eq!(control, None, "{log}");
}

fn lab() -> Lab {
    // Build the components before anything waits for them.
    hostile("well-behaved");
    Lab::new(Families::V4).unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of attacks and refusals")]
fn forbidden_objects_in_node_plan_are_refused() {
    let overlay = "expected within 10.244.0.0/16";
    let planned = "expected on a device that the node's plan has";
    let name = "expected the name of a device";
    let capability = "expected a capability for it";
    let no_routes = "expected the setting net.ipv6.conf.heddle1.accept_ra = 0";
    play(
        &lab(),
        Nothing,
        &[
            ("default-route", &[("", &["route 0.0.0.0/0 dev heddle1", overlay])]),
            ("wide-address", &[("", &["/5 dev heddle1", overlay])]),
            (
                "peer-address",
                &[("", &["address 10.244.201.7/32 dev heddle1", "expected within 10.244."])],
            ),
            ("eth0-address", &[("", &["dev eth0", planned])]),
            (
                "foreign-device",
                &[
                    ("vxlan100", &["link vxlan100: expected a capability for it: links heddle*"]),
                    ("eth0", &["link eth0: it is the external interface, which no plan may have"]),
                ],
            ),
            (
                "foreign-underlay",
                &[("", &["link heddle1: its packets leave through br0: expected eth0"])],
            ),
            ("spoofed-source", &[("", &["link heddle1: its source address is 192.168.255.254"])]),
            ("dns-port", &[("", &["link heddle1 with UDP port 53", capability, "1024-65535"])]),
            ("two-ports", &[("", &["link heddle2 with UDP port 8473: expected 8472"])]),
            (
                "takes-routes",
                &[
                    ("none", &[no_routes]),
                    ("always", &[no_routes]),
                    ("proxy", &["net.ipv4.conf.heddle1.proxy_arp = 1", capability]),
                ],
            ),
            (
                "foreign-sysctl",
                &[
                    ("all", &["sysctl net.ipv4.conf.all.forwarding = 0", planned]),
                    ("default", &["sysctl net.ipv4.conf.default.forwarding = 0", planned]),
                    ("eth0", &["sysctl net.ipv4.conf.eth0.forwarding = 0", planned]),
                    ("br0/../eth0", &["sysctl on `br0/../eth0`", name]),
                    ("dots", &["sysctl on `..`", name]),
                    (
                        "path",
                        &[
                            "../../../../kernel/core_pattern",
                            "expected a name of lower-case letters",
                        ],
                    ),
                    (
                        "value",
                        &["forwarding = 0 1", "expected a value of 1 to 64 printable characters"],
                    ),
                    (
                        "device",
                        &["link all: expected a name that is not that of all devices' settings"],
                    ),
                ],
            ),
            (
                "device-names",
                &[
                    ("escape", &["link on `heddle [2J`", name]),
                    ("tiny", &["link heddle1: its MTU is 0: expected 68 to 65535"]),
                    ("huge", &["link heddle1: its MTU is 4294967295: expected 68 to 65535"]),
                    ("containers", &["mtu 4294967295: expected 68 to 65535"]),
                    (
                        "group",
                        &["link heddle1 with MAC ff:ff:ff:ff:ff:ff: expected a unicast address"],
                    ),
                    ("vni", &["link heddle1: its VNI is 4294967295"]),
                    ("port", &["link heddle1: its port is 0"]),
                ],
            ),
            (
                "neighbours-of-all",
                &[("", &["neighbour 10.244.201.0", "expected only in the plan of the peer"])],
            ),
            (
                "foreign-route",
                &[
                    ("", &["via 192.168.255.254 dev eth0", "a device that the node's plan has"]),
                    ("taken", &["route 198.51.100.0/24 dev heddle1", overlay]),
                ],
            ),
            (
                "million-objects",
                &[
                    ("million", &["exceeded the memory limit of 64 MiB"]),
                    ("more", &["exceeded the limit of 8 MiB on an answer"]),
                    ("many", &["20003 objects: expected at most 10000"]),
                ],
            ),
            ("unasked", &[("", &["link heddle1: expected a capability for it: links none"])]),
            (
                "backend-data",
                &[
                    (
                        "huge",
                        &["advertise", "backend data of 1048578 bytes: expected at most 8192"],
                    ),
                    ("deep", &["advertise", "expected JSON"]),
                    ("fields", &["advertise", "expected JSON"]),
                    ("more", &["advertisements for 2 families: expected 1"]),
                    (
                        "type",
                        &[
                            "advertise",
                            "backend type `x\",\"PublicIP\"",
                            "expected 1 to 32 letters",
                        ],
                    ),
                ],
            ),
            (
                "tun-without-steering",
                &[("", &["link heddle1", "planned by a plugin of the world backend-plugin"])],
            ),
            (
                "packets",
                &[
                    ("tun-source", &["link heddle1: its source address is 192.168.255.254"]),
                    ("tun-port", &["link heddle1 with UDP port 53", capability]),
                    (
                        "tun-none",
                        &["link heddle1: its source addresses are : expected one of the family"],
                    ),
                    ("tun-two", &["link heddle2: it is the second TUN device"]),
                    ("overhead-loop", &["overhead: exceeded the time limit of 1 s"]),
                    ("overhead-huge", &["overhead 4294967295: expected at most 1024 bytes"]),
                ],
            ),
        ],
    );
}

#[test]
fn unusable_component_is_refused() {
    let lab = lab();
    play(
        &lab,
        Nothing,
        &[
            (
                "greedy",
                &[(
                    "",
                    &[
                        "asks for capabilities that are not granted",
                        "routes 0.0.0.0/0, udp-ports 1-65535",
                        "files /etc/",
                    ],
                )],
            ),
            ("impostor", &[("", &["has the name `vxlan`: expected `impostor`"])]),
            ("wrong-world", &[("", &["cannot be loaded", "heddle:overlay/steering@0.1.0"])]),
            ("newer-wit", &[("", &["was built for WIT 0.2.0, and this host supports 0.1.0"])]),
            (
                "huge-manifest",
                &[("", &["has a manifest of 1048576 bytes: expected at most 16 KiB"])],
            ),
            ("forbidden-import", &[("", &["cannot be loaded", "evil:shell/shell"])]),
        ],
    );
    let good = fs::read(hostile("well-behaved")).unwrap();
    // A name of the same length keeps the component valid.
    let (old, new) = (br#""name":"well-behaved""#, br#""name":"tampered-one""#);
    let mut tampered = good.clone();
    for at in 0..good.len() - old.len() {
        if good[at..].starts_with(old) {
            tampered[at..at + old.len()].copy_from_slice(new);
        }
    }
    for (name, component, says) in [
        ("tampered-one", tampered.as_slice(), "expected 0000000000"),
        ("cut-off", &good[..good.len() / 2], "not a WebAssembly component"),
        ("module", b"\0asm\x01\0\0\0", "it is a core module"),
        ("empty", b"", "not a WebAssembly component"),
    ] {
        Stage::new(&lab, name, name, component).play("", Nothing, &[name, says], &[]);
    }
}

#[test]
fn runaway_node_functions_are_stopped() {
    play(
        &lab(),
        Nothing,
        &[
            (
                "trap",
                &[
                    ("advertise", &["advertise: trapped", "as was asked for"]),
                    ("plan-node", &["plan-node: trapped", "as was asked for"]),
                ],
            ),
            ("recursion", &[("plan-node", &["plan-node: trapped", "stack"])]),
            ("hoard", &[("plan-node", &["plan-node: exceeded the memory limit of 64 MiB"])]),
            ("sleeper", &[("plan-node", &["plan-node: trapped", "cannot wait for time to pass"])]),
            ("exit", &[("plan-node", &["plan-node: trapped", "it exited with status 0"])]),
            ("start-trap", &[("", &["advertise: trapped", "as was asked for"])]),
            ("start-loop", &[("", &["advertise: exceeded the time limit of 1 s"])]),
            (
                "malformed-text",
                &[
                    ("utf-8", &["advertise: trapped", "utf-8"]),
                    ("pointer", &["advertise: trapped", "out of bounds"]),
                    ("length", &["advertise: trapped", "out of bounds"]),
                    ("alias", &["plan-node: exceeded the limit of 8 MiB on an answer"]),
                ],
            ),
            (
                "forged-lines",
                &[("advertise", &["advertise: is wrong 2026-01-01T00:00:00Z INFO forged"])],
            ),
            (
                "leaks",
                &[
                    ("streams", &["plan-node: trapped: resource table has no free keys"]),
                    (
                        "pollables",
                        &["plan-node: trapped: cannot lend resource: store handle limit exceeded"],
                    ),
                    ("random", &["plan-node: trapped", "65536"]),
                    ("gigabyte", &["plan-node: trapped", "65536"]),
                ],
            ),
        ],
    );
}

#[test]
fn plugin_that_never_returns_is_called_with_backoff() {
    let lab = lab();
    let stage = endless(&lab);
    for call in ["advertise", "plan-node"] {
        stage.put_config(call);
        let daemon = stage.start(&[]);
        let says = format!("{call}: exceeded the time limit of 1 s");
        daemon.wait_log(&["endless-loop", &says], SAID).unwrap();
        let before = victim::cpu_time(daemon.pid());
        thread::sleep(Duration::from_secs(8));
        let busy = victim::cpu_time(daemon.pid()) - before;
        assert!(busy < Duration::from_millis(1500), "{call}: busy for {busy:?} of 8 s");
        stage.victim.check(true);
    }
}

fn endless(lab: &Lab) -> Stage {
    Stage::new(lab, "endless", "endless-loop", &fs::read(hostile("endless-loop")).unwrap())
}

#[test]
fn forbidden_objects_in_peer_plan_are_refused() {
    let subnet = "expected within 10.244.66.0/24";
    let public = "the peer's public address, 192.168.0.66";
    let planned = "a device that the node's plan has";
    let tricks: &[Trick<'_>] = &[
        ("default", &["route 0.0.0.0/0 dev heddle1", subnet]),
        ("overlay", &["route 10.244.0.0/16 dev heddle1", subnet]),
        ("subnet", &["route 10.244.201.0/24", subnet]),
        ("router", &["via 192.168.255.254 dev eth0", public]),
        ("other", &["via 192.168.0.201 dev eth0", public]),
        ("bridge", &["dev br0", planned]),
        ("gateway", &["via 10.244.201.0 dev heddle1", "expected a gateway within 10.244.66.0/24"]),
        ("neighbour", &["neighbour 10.244.201.0", subnet]),
        ("arp", &["neighbour 192.168.255.254 dev eth0", planned]),
        ("fdb", &["dst 192.168.0.201", public]),
        ("device", &["link heddle2", "expected devices in the plan of the node only"]),
        ("address", &["address 10.244.66.0/24 dev heddle1", "only in the plan of the node"]),
        ("sysctl", &["net.ipv4.conf.heddle1.forwarding", "only in the plan of the node"]),
    ];
    play(&lab(), WithoutPeer, &[("peer-theft", tricks)]);
}

#[test]
fn runaway_peer_functions_are_stopped() {
    let peer = "plan-peer for lease 10.244.66.0-24 of 192.168.0.66";
    let forged = "as was asked for 2026-01-01T00:00:00Z INFO forged";
    let complaint = "the lease cannot be used: is wrong 2026-01-01T00:00:00Z INFO forged";
    play(
        &lab(),
        WithoutPeer,
        &[
            ("endless-loop", &[("", &[peer, "exceeded the time limit of 1 s"])]),
            ("trap", &[("", &[peer, forged])]),
            ("recursion", &[("", &[peer, "stack"])]),
            ("hoard", &[("", &[peer, "exceeded the memory limit of 64 MiB"])]),
            ("sleeper", &[("", &[peer, "cannot wait for time to pass"])]),
            ("exit", &[("", &[peer, "it exited with status 1"])]),
            ("million-objects", &[("", &[peer, "67 objects: expected at most 64"])]),
            ("forged-lines", &[("", &[peer, complaint])]),
        ],
    );
}

#[test]
fn harmless_tricks_leave_plugin_working() {
    let lab = lab();
    play(
        &lab,
        Everything,
        &[
            ("log-flood", &[("", &["log lines dropped; its limits are"])]),
            ("files-and-sockets", &[("", &["nothing of that works"])]),
        ],
    );
    let stage = |name| Stage::new(&lab, name, name, &fs::read(hostile(name)).unwrap());
    let says = "heddle0 exists and is a bridge that heddled did not create";
    stage("foreign-device").play("heddle0", WithoutDevice, &["plugin foreign-device", says], &[]);
}

/// A peer's MAC is the one in its own record, even if the thief's record is older.
#[test]
fn peer_keeps_its_end_point() {
    let lab = lab();
    let component = fs::read(hostile("end-point-theft")).unwrap();
    let stage = Stage::new(&lab, "end-point-theft", "end-point-theft", &component);
    stage.put_config("");
    let mut daemon = stage.start(&[]);
    let [said, both] = ["10.244.201.0-24 of 192.168.0.201", "10.244.66.0-24 of 192.168.0.66"];
    let says = ["plugin end-point-theft plans fdb", said, both, "192.168.0.201 has it"];
    daemon.wait_log(&says, SAID).unwrap();
    stage.check_fate(&daemon, Everything, &[]);
    let fdb = stage.host().kernel_state().unwrap().fdb;
    for number in [SPOILT].into_iter().chain(HONEST) {
        let mac = end_point(number);
        let found: Vec<_> = fdb.iter().filter(|entry| entry.mac == mac).collect();
        let expected = format!("192.168.0.{number}");
        assert!(found.len() == 1 && found[0].dst.as_ref() == Some(&expected), "{mac}: {found:?}");
    }
    stage.victim.check(false);
    check_bounds(&mut daemon);
}

#[test]
fn fickle_plugin_is_not_called_again() {
    let lab = lab();
    let stage = Stage::new(&lab, "fickle", "fickle", &fs::read(hostile("fickle")).unwrap());
    stage.put_config("");
    let mut daemon = stage.start(&[]);
    daemon.wait_ready().unwrap();
    // A call that trapped may be repeated until there is a plan.
    let settled = || {
        let before = stage.host().kernel_state().unwrap();
        thread::sleep(Duration::from_secs(2));
        let now = stage.host().kernel_state().unwrap();
        if now == before { Ok(now) } else { Err("it has changed") }
    };
    let state = wait_until("two seconds without a change", SAID, settled).unwrap();
    for number in HONEST {
        assert!(state.route(&format!("10.244.{number}.0/24")).is_some());
    }
    stage.victim.check(false);
    check_bounds(&mut daemon);
}

#[test]
fn instantiation_beyond_limits_is_refused() {
    let lab = lab();
    let good = fs::read(hostile("well-behaved")).unwrap();
    let globals = "(global (mut i64) (i64.const 1))".repeat(100_000);
    let fill = "(table 90000 funcref) (func $f) (elem declare func $f)
        (func $fill (table.fill 0 (i32.const 0) (ref.func $f) (i32.const 90000))) (start $fill)";
    let tables = "(table 0 funcref)".repeat(60);
    let jumps = format!("(block (br_table {} (local.get 0)))", "0 ".repeat(60_000)).repeat(100);
    // Modules added to the component, and the number of their instances.
    let grafts: &[(&str, u32, &str)] = &[
        ("(func $f (loop (br 0))) (start $f)", 1, "exceeded the time limit of 1 s"),
        ("(func $f (unreachable)) (start $f)", 1, "trapped"),
        ("(func $f (call $f)) (start $f)", 1, "stack"),
        ("(memory 65536)", 1, "exceeded the memory limit of 64 MiB"),
        ("(memory 100)", 11, "exceeded the memory limit of 64 MiB"),
        ("(memory 0)", 99, "memory count too high"),
        (fill, 2, "elements in tables are more than the limit"),
        (&tables, 2, "table count too high"),
        ("", 500, "instance count too high"),
        (&globals, 90, "is too large to instantiate"),
        (&format!("(func (param i32) {jumps})"), 1, "cannot be compiled"),
    ];
    with_each(grafts.iter().enumerate(), |(number, (module, count, says))| {
        let grafted = graft(&good, &format!("(module {module})"), *count);
        let stage = Stage::new(&lab, &format!("graft-{number}"), "well-behaved", &grafted);
        stage.play(says, Nothing, &["well-behaved", says], &[]);
    });
    // Without an added module it works.
    let stage = Stage::new(&lab, "good", "well-behaved", &good);
    stage.play("", Everything, &["well-behaved"], &[]);
}

#[test]
fn forbidden_emitter_files_are_refused() {
    let lab = lab();
    let capability = "expected the setting `path`, or a capability for it";
    let tricks: &[Trick<'_>] = &[
        ("passwd", &["file /etc/passwd (644)", capability]),
        ("private", &["/private/passwd (644)", capability]),
        ("dots", &["expected an absolute path without `..`"]),
        ("relative", &["file etc/passwd (644): expected an absolute path without `..`"]),
        ("through-link", &["run/link: it is a symbolic link"]),
        ("control-socket", &[&format!("run/heddle/heddled.sock: {NOT_A_FILE}")]),
        ("below-file", &[&format!("run/present: {NOT_A_DIRECTORY}")]),
        ("in-place-of-directory", &[&format!("run/flannel: {NOT_A_FILE}")]),
        ("setuid", &["run/shell (4755): expected permission bits up to 755"]),
        ("world-writable", &["run/open (666): expected permission bits up to 755"]),
        ("escape", &["expected a path without control characters"]),
        ("long", &["expected a path of at most 1024 bytes"]),
        ("many", &["17 files: expected at most 16"]),
        ("large", &["run/large of 1048577 bytes: expected at most 1048576"]),
        ("twice", &["run/x (644): planned more than once"]),
        ("filling", &["File name too long"]),
        ("loop", &["emit: exceeded the time limit of 1 s"]),
        ("trap", &["emit: trapped"]),
        ("words", &["emit: is wrong 2026-01-01T00:00:00Z INFO forged"]),
    ];
    let component = fs::read(hostile("files")).unwrap();
    thread::scope(|scope| {
        for (number, tricks) in tricks.chunks(TRICKS).enumerate() {
            let (lab, component) = (&lab, &component);
            scope.spawn(move || {
                let stage = Stage::new(lab, &format!("files-{number}"), "files", component);
                for number in HONEST {
                    let data = format!(r#"{{"VNI":1,"VtepMAC":"02:00:00:00:00:{number:02x}"}}"#);
                    put_lease(&stage.store, number, "vxlan", &data);
                }
                let dir = stage.host().directory().display();
                for (trick, says) in tricks {
                    let says: Vec<_> = says.iter().copied().chain(["files"]).collect();
                    let emit = format!("--emit=files:wish={trick},dir={dir}");
                    stage.play(trick, WithoutFiles, &says, &["--emit=subnet-env", &emit]);
                }
            });
        }
    });
}

#[test]
fn hostile_packet_plugin_is_contained() {
    let lab = lab();
    // A host with an honest peer's address, which sends the packets for the plugin.
    let peer = lab.numbered_host("peer", HONEST[0].into()).unwrap();
    let socket = peer.namespace().udp_socket((peer.v4(), 8472).into()).unwrap();
    let tricks = [
        ("update-loop", "exceeded the time limit of 1 s"),
        ("update-trap", "as was asked for"),
        ("update-hoard", "exceeded the memory limit of 64 MiB"),
        ("steer-loop", "exceeded the time limit of 20 ms"),
        ("steer-trap", "as was asked for"),
        ("steer-range", "peer 4294967295: expected one of 3"),
        ("encapsulate-loop", "exceeded the time limit of 20 ms"),
        ("encapsulate-trap", "as was asked for"),
        ("encapsulate-long", "expected at most"),
        ("decapsulate-loop", "exceeded the time limit of 20 ms"),
        ("decapsulate-trap", "as was asked for"),
        ("decapsulate-long", "expected at most 65535"),
    ];
    let component = fs::read(hostile("packets")).unwrap();
    thread::scope(|scope| {
        for (number, tricks) in tricks.chunks(TRICKS).enumerate() {
            let (lab, component, socket) = (&lab, &component, &socket);
            scope.spawn(move || {
                let stage = Stage::new(lab, &format!("packets-{number}"), "packets", component);
                for (trick, says) in tricks {
                    stage.play_packets(trick, says, socket);
                }
            });
        }
    });
}
