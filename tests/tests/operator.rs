//! The operator's commands: `heddle status`, `lease list`, `config check` and `explain-iface`.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use heddle_lab::{Families, Host, Signal, wait_until};
use heddle_tests::wording::peer_left;
use heddle_tests::{Cluster, Node, Overlay, SOON, heddle};
use serde_json::Value;

/// Report of a network config in the store that has another backend than the running one.
const CHANGED: &str = "changed in the store: `Backend.VNI` added (7)";

/// Result of a run of `heddle`.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Returns the columns of the table line that starts with this word. The last column takes the
    /// rest of the line.
    fn row(&self, first: &str, columns: usize) -> Vec<String> {
        let mut lines = self.stdout.lines();
        let line = lines
            .find(|line| line.split_whitespace().next() == Some(first))
            .unwrap_or_else(|| panic!("no line of {first} in\n{}", self.stdout));
        let mut rest = line;
        let mut row = Vec::new();
        for _ in 1..columns {
            let (word, after) = rest.split_once("  ").unwrap_or((rest, ""));
            row.push(word.to_owned());
            rest = after.trim_start();
        }
        row.push(rest.to_owned());
        row
    }
}

fn run(mut command: Command, input: &str) -> Answer {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command may exit without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `heddle` with a control socket.
fn ask_at(socket: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(heddle());
    command.args(arguments).arg("--socket").arg(socket);
    run(command, "")
}

/// Runs `heddle` against a host's daemon.
fn ask(host: &Host, arguments: &[&str]) -> Answer {
    ask_at(&host.control_socket(), arguments)
}

/// Returns a peer in `status --json`.
fn peer<'a>(status: &'a Value, key: &str) -> Option<&'a Value> {
    status["peers"].as_array().unwrap().iter().find(|peer| peer["key"] == key)
}

/// Waits until a node's status is as wanted.
fn wait_status(node: &Node, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_until(what.to_owned(), SOON, || {
        let status = ask(&node.host, &["status", "--json"]).json();
        if wanted(&status) { Ok(status) } else { Err(format!("{status:#}")) }
    })
    .unwrap()
}

/// Returns a lease's key without the prefix.
fn key_of(cluster: &Cluster, node: &Node) -> String {
    cluster.lease(node).key.rsplit_once('/').unwrap().1.to_owned()
}

#[test]
fn status_shows_node_and_state_of_each_peer() {
    let cluster = Cluster::new(Families::V4);
    let [a, b, c] = cluster.nodes(["a", "b", "c"]);
    cluster.put_lease("nonsense", "{}");
    cluster.put_lease("10.244.0.0-24", r#"{"PublicIP":"172.16.0.9","BackendType":"wormhole"}"#);
    let [own, second, third] = [&a, &b, &c].map(|node| key_of(&cluster, node));
    let status = wait_status(&a, "four peers", |status| {
        status["ready"] == true && status["peers"].as_array().is_some_and(|peers| peers.len() == 4)
    });

    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["network"], "/coreos.com/network");
    assert_eq!(status["unmet"], Value::Array(vec![]));
    assert_eq!(status["node"]["id"], "a");
    assert_eq!(status["underlay"]["interface"], "eth0");
    assert_eq!(status["underlay"]["mtu"], 1500);
    assert_eq!(status["underlay"]["public_addresses"][0], a.host.v4().to_string());
    assert_eq!((&status["lease"]["key"], &status["lease"]["mtu"]), (&own.into(), &1450.into()));
    let backend = &status["backend"];
    assert_eq!((&backend["name"], &backend["source"]), (&"vxlan".into(), &"built-in".into()));
    assert_eq!(backend["digest"].as_str().unwrap().len(), 64);
    // One call for the lease, one for the node, and one for each usable peer.
    assert!(backend["calls"].as_u64().unwrap() >= 4 && backend["failures"] == 0, "{backend}");
    let emitter = &status["emitters"][0];
    assert_eq!(emitter["plugin"]["name"], "subnet-env");
    assert_eq!(emitter["files"][0], a.host.subnet_file().to_str().unwrap());
    assert_eq!(status["devices"][0]["name"], "flannel.1");
    assert!(status["changes"]["put"].as_u64().unwrap() >= 6, "{}", status["changes"]);

    for (key, node) in [(&second, &b), (&third, &c)] {
        let found = peer(&status, key).unwrap();
        assert_eq!(found["node_id"], node.host.name());
        assert_eq!(found["public_addresses"][0], node.host.v4().to_string());
        assert_eq!((&found["state"], &found["objects"]), (&"in-kernel".into(), &3.into()));
        assert!(found["reason"].is_null() && found["changed"].as_u64().unwrap() > 1_600_000_000);
    }
    let garbage = peer(&status, "nonsense").unwrap();
    assert_eq!(garbage["state"], "not-used");
    assert!(garbage["reason"].as_str().unwrap().contains("not a lease key"), "{garbage}");
    let other = peer(&status, "10.244.0.0-24").unwrap();
    assert_eq!((&other["state"], &other["objects"]), (&"no-plan".into(), &0.into()));
    assert!(other["reason"].as_str().unwrap().contains("wormhole"), "{other}");

    let table = ask(&a.host, &["status"]);
    let line = table.row(&second, 7);
    assert_eq!((line[1].as_str(), line[3].as_str()), (&*b.host.v4().to_string(), "vxlan"));
    assert_eq!((line[5].as_str(), line[6].as_str()), ("3", "in the kernel"));
    assert!(table.row("nonsense", 7)[6].starts_with("not used: "), "{}", table.stdout);
    assert!(table.stdout.starts_with("heddled "), "{}", table.stdout);
    assert!(table.stdout.lines().all(|line| !line.contains('\u{1b}') && line == line.trim_end()));
}

#[test]
fn status_has_packet_counters_of_the_device() {
    let cluster = Cluster::new(Families::V4);
    let [a, b] = cluster.nodes(["a", "b"]);
    let (here, there) = (a.host.container().unwrap(), b.host.container().unwrap());
    wait_status(&a, "the peer", |status| status["peers"][0]["state"] == "in-kernel");
    let count = |status: &Value| status["devices"][0]["counters"]["tx_packets"].as_u64().unwrap();
    let before = count(&ask(&a.host, &["status", "--json"]).json());
    here.ping(Overlay::V4.address_in(&there), 56).unwrap();
    wait_status(&a, "a packet more", |status| count(status) > before);
}

#[test]
fn stopped_peer_is_kept_and_peer_without_lease_removed() {
    let cluster = Cluster::new(Families::V4);
    let [a, mut b] = cluster.nodes(["a", "b"]);
    let key = key_of(&cluster, &b);
    b.stop(Signal::TERM);
    let status = wait_status(&a, "the peer", |status| peer(status, &key).is_some());
    assert_eq!(peer(&status, &key).unwrap()["state"], "in-kernel");
    cluster.delete_lease(&key);
    wait_status(&a, "no peer", |status| status["peers"].as_array().unwrap().is_empty());
    let shown = ask(&a.host, &["status"]).stdout;
    assert!(shown.contains("\nno peers\n"), "{shown}");
    let (_, happened) = shown.split_once("\nWHEN ").unwrap();
    assert!(happened.lines().nth(1).unwrap().contains(&peer_left(&key)), "{happened}");
}

#[test]
fn object_refused_by_kernel_makes_peer_incomplete() {
    let cluster = Cluster::with_backend(Families::V4, "host-gw");
    // The address is in no network that the host is connected to.
    cluster.put_lease("10.244.9.0-24", r#"{"PublicIP":"172.16.0.9","BackendType":"host-gw"}"#);
    let a = cluster.node("a");
    let status = wait_status(&a, "the refusal", |status| {
        peer(status, "10.244.9.0-24").is_some_and(|peer| peer["state"] == "incomplete")
    });
    let reason = peer(&status, "10.244.9.0-24").unwrap()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("10.244.9.0/24"), "{reason}");
    assert_eq!(status["ready"], true, "{status:#}");
    assert!(status["changes"]["refused"].as_u64().unwrap() > 0, "{status:#}");
}

#[test]
fn node_without_config_reports_what_it_waits_for() {
    let cluster = Cluster::with_config(Families::V4, None);
    let node = cluster.starting_node("a", &[]);
    let answer = wait_until("an answer", SOON, || {
        let answer = ask(&node.host, &["status"]);
        let told = answer.stdout.contains("/coreos.com/network/config does not exist");
        if told { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .unwrap();
    assert_eq!(answer.code, Some(0));
    assert_eq!(ask(&node.host, &["status", "--check"]).code, Some(3));
    assert!(answer.stdout.contains(", not ready, "), "{}", answer.stdout);
    assert!(ask(&node.host, &["status", "--json"]).json()["lease"].is_null());
}

#[test]
fn lease_list_has_every_record_of_store() {
    let cluster = Cluster::new(Families::V4);
    cluster.put_lease("10.244.0.0-24", r#"{"PublicIP":"172.16.0.9"}"#);
    cluster.put_lease("garbage", "\u{1b}[2J");
    let [a, b] = cluster.nodes(["a", "b"]);
    let [own, other] = [&a, &b].map(|node| key_of(&cluster, node));

    let listed = ask(&a.host, &["lease", "list", "--json"]).json();
    let record = |key: &str| {
        let records = listed["records"].as_array().unwrap();
        records.iter().find(|record| record["key"] == key).unwrap().clone()
    };
    assert_eq!(listed["records"].as_array().unwrap().len(), 4);
    for (key, node, is_own) in [(&own, &a, true), (&other, &b, false)] {
        let record = record(key);
        assert_eq!(record["node_id"], node.host.name());
        assert_eq!(record["public_addresses"][0], node.host.v4().to_string());
        assert_eq!((&record["own"], &record["reservation"]), (&is_own.into(), &false.into()));
        assert!(record["problem"].is_null() && record["backend"] == "vxlan", "{record}");
    }
    let reservation = record("10.244.0.0-24");
    assert_eq!((&reservation["reservation"], &reservation["own"]), (&true.into(), &false.into()));
    assert!(record("garbage")["problem"].as_str().unwrap().contains("not a lease key"));

    let table = ask(&a.host, &["lease", "list"]);
    assert_eq!(table.code, Some(0));
    let name = table.row(&own, 7)[2].clone();
    assert_eq!(
        table.row(&own, 7),
        [&own, &a.host.v4().to_string(), &name, "vxlan", "lease", "own", "-"]
    );
    assert_eq!(
        table.row("10.244.0.0-24", 7),
        ["10.244.0.0-24", "172.16.0.9", "-", "-", "reservation", "-", "-"]
    );
    assert!(table.row("garbage", 7)[6].contains("not a lease key"), "{}", table.stdout);
}

#[test]
fn socket_permissions_decide_access() {
    /// Debian's `nobody` and `nogroup`, without any other permissions.
    const NOBODY: u32 = 65_534;
    let cluster = Cluster::new(Families::V4);
    // A directory that all users can access, so that only the socket's permissions matter.
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let tool = open.path().join("heddle");
    std::fs::copy(heddle(), &tool).unwrap();
    let as_nobody = |socket: &Path| {
        let mut command = Command::new(&tool);
        command.current_dir("/").args(["status", "--socket"]).arg(socket).uid(NOBODY).gid(NOBODY);
        run(command, "")
    };

    let private = open.path().join("private.sock");
    let mut a = cluster.starting_node("a", &[&format!("--control-socket={}", private.display())]);
    a.daemon().wait_ready().unwrap();
    let found = private.metadata().unwrap();
    assert_eq!((found.mode() & 0o777, found.uid()), (0o600, 0));
    let refused = as_nobody(&private);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("root alone"), "{}", refused.stderr);
    assert_eq!(ask_at(&private, &["status"]).code, Some(0));

    let shared = open.path().join("shared.sock");
    let socket = format!("--control-socket={}", shared.display());
    let mut b = cluster.starting_node("b", &[&socket, "--control-group=nogroup"]);
    b.daemon().wait_ready().unwrap();
    let found = shared.metadata().unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, NOBODY));
    assert_eq!(as_nobody(&shared).code, Some(0));

    let mut c = cluster.starting_node("c", &["--control-group=no-such-group"]);
    c.daemon().wait_ready().unwrap();
    let (_, body) = c.daemon().health("/readyz").unwrap();
    assert!(body.contains("no-such-group"), "{body}");
    assert!(!c.host.control_socket().exists());
}

#[test]
fn status_without_daemon_is_an_error() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let socket = node.host.control_socket();
    assert_eq!(ask(&node.host, &["status"]).code, Some(0));
    node.stop(Signal::KILL);
    for arguments in [&["status"][..], &["status", "--json"], &["lease", "list"]] {
        let answer = ask(&node.host, arguments);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(answer.stderr.contains(socket.to_str().unwrap()), "{}", answer.stderr);
        assert!(answer.stderr.contains("is heddled running?"), "{}", answer.stderr);
    }
    // The stale socket does not prevent the next start.
    cluster.restart(&mut node);
    assert_eq!(ask(&node.host, &["status"]).code, Some(0));

    let mut command = Command::new(heddle());
    command.args(["status", "--instance", "no-such-instance"]);
    let answer = run(command, "");
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.contains("/run/heddle/no-such-instance.sock"), "{}", answer.stderr);
}

#[test]
fn second_daemon_on_same_socket_joins_and_warns() {
    let cluster = Cluster::new(Families::V4);
    let mut a = cluster.node("a");
    let socket = a.host.control_socket().display().to_string();
    let mut b = cluster.starting_node("b", &[&format!("--control-socket={socket}")]);
    b.daemon().wait_ready().unwrap();
    b.daemon().wait_log(&["control socket: unavailable", &socket, "another daemon"], SOON).unwrap();
    let (code, body) = b.daemon().health("/readyz").unwrap();
    assert_eq!(code, 200, "{body}");
    assert!(body.contains("warning: control socket: ") && body.contains(&socket), "{body}");
    let owner = |host: &Host| ask(host, &["status", "--json"]).json()["node"]["id"].clone();
    assert_eq!(owner(&a.host), "a");

    a.stop(Signal::TERM);
    b.daemon().wait_log(&["control socket: available"], SOON + Duration::from_secs(10)).unwrap();
    assert_eq!(owner(&a.host), "b");
    assert!(!b.daemon().health("/readyz").unwrap().1.contains("control socket"));
}

/// Runs `heddle config check -`.
fn check(config: &str) -> Answer {
    let mut command = Command::new(heddle());
    command.args(["config", "check", "-"]);
    run(command, config)
}

#[test]
fn config_check_shows_config_with_defaults() {
    let answer = check(r#"{"network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":7}}"#);
    let expected = serde_json::json!({
        "EnableIPv4": true,
        "Network": "10.244.0.0/16",
        "SubnetLen": 24,
        "SubnetMin": "10.244.1.0",
        "SubnetMax": "10.244.255.0",
        "EnableIPv6": false,
        "EnableNFTables": false,
        "Backend": {"Type": "vxlan", "VNI": 7},
    });
    let capacity = "standard input: 10.244.0.0/16: 255 subnets of 254 addresses\n";
    assert_eq!((answer.json(), answer.stderr.as_str()), (expected, capacity));

    let dual = check(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
    let config = dual.json();
    assert_eq!(config["IPv6SubnetMax"], "fd00:0:0:ffff::");
    assert_eq!(config["Backend"]["Type"], "vxlan");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, r#"{"Network":"10.244.0.0/16","SubnetLength":26}"#).unwrap();
    let mut command = Command::new(heddle());
    command.args(["config", "check"]).arg(&file);
    let answer = run(command, "");
    assert_eq!(answer.json()["SubnetLen"], 24);
    assert!(
        answer.stderr.contains("config.json: warning: `SubnetLength` is not a known key"),
        "{}",
        answer.stderr
    );
    let mut command = Command::new(heddle());
    command.args(["config", "check", "--strict"]).arg(&file);
    assert_eq!(run(command, "").code, Some(1));
}

#[test]
fn config_check_warns_of_what_has_no_effect() {
    for (config, warning) in [
        (r#"{"Network":"10.244.3.7/16"}"#, "10.244.0.0/16 is used"),
        (r#"{"Network":"10.1.0.0/16","IPv6Network":"fd00::/48"}"#, "`IPv6Network` has no effect"),
        (
            r#"{"Network":"10.1.0.0/16","Backend":{"Type":"VXLAN","Prot":1}}"#,
            "`Backend.Prot` is not a known key of vxlan; ignored (did you mean `Port`?)",
        ),
    ] {
        let answer = check(config);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        assert!(answer.stderr.contains(warning), "{}", answer.stderr);
    }
}

#[test]
fn config_check_reports_all_errors() {
    for (config, named) in [
        ("", &["at line 1 column 0"][..]),
        ("{\n\"Network\":\n}", &["at line 3 column 1"]),
        ("[]", &["not a JSON object"]),
        ("{}", &["`Network` is missing"]),
        (r#"{"Network":"10.244.0.0"}"#, &["`Network` is \"10.244.0.0\""]),
        (r#"{"Network":"10.244.0.0/29"}"#, &["`Network`"]),
        (r#"{"Network":"10.244.0.0/16","network":"10.0.0.0/8"}"#, &["more than once"]),
        (r#"{"Network":"10.244.0.0/16","SubnetLen":31}"#, &["`SubnetLen` is 31: must be 18 to 30"]),
        (
            r#"{"Network":"10.244.0.0/16","SubnetMin":"10.245.0.0","SubnetMax":"10.244.1.7"}"#,
            &["`SubnetMin` is 10.245.0.0", "`SubnetMax` is 10.244.1.7"],
        ),
        (
            r#"{"EnableIPv4":"yes","SubnetLen":"x","EnableIPv6":true,"EnableNFTables":1,"Backend":7}"#,
            &["`EnableIPv4`", "`Network`", "`IPv6Network`", "`EnableNFTables`", "`Backend` is 7"],
        ),
        (r#"{"EnableIPv4":false}"#, &["`EnableIPv4`"]),
        (
            r#"{"Network":"127.0.0.0/8","SubnetMin":"10.1.1.1","SubnetLen":33}"#,
            &["`Network` is 127.0.0.0/8", "`SubnetLen` is 33", "`SubnetMin` is 10.1.1.1"],
        ),
        (r#"{"Network":"10.244.0.0/16","Backend":{}}"#, &["`Backend.Type`"]),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wormhole"}}"#,
            &["`Backend.Type` is wormhole", "vxlan"],
        ),
        (
            r#"{"Network":"x","Backend":{"Type":"vxlan","VNI":16777216}}"#,
            &["`Network`", "`Backend.VNI`"],
        ),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":60}}"#,
            &["`Backend.MTU` is 60"],
        ),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"udp","Port":70000}}"#,
            &["`Backend.Port`"],
        ),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":60,"GBP":1,"Port":-1}}"#,
            &["Backend.Port` is -1", "Backend.GBP is 1", "Backend.MTU is 60"],
        ),
    ] {
        let answer = check(config);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{config}");
        for text in named {
            assert!(answer.stderr.contains(text), "{config}: {text} in\n{}", answer.stderr);
        }
    }
}

/// Runs `heddle explain-iface` on a host.
fn explain(host: &Host, flags: &[&str]) -> Answer {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host.namespace().name()]).arg(heddle());
    command.args(["explain-iface", "--environment-file="]).args(flags);
    run(command, "")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of flags and explanations")]
fn explain_iface_explains_each_interface() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    for command in [
        "link add name lan type bridge",
        "addr add 10.9.0.1/16 dev lan",
        "link set lan up",
        "link add name spare type bridge",
    ] {
        host.namespace().ip(command).unwrap();
    }
    let store = cluster.store().arguments();
    let explain = |flags: &[&str]| {
        let store = store.iter().map(String::as_str);
        explain(&host, &store.chain(flags.iter().copied()).collect::<Vec<_>>())
    };
    // Flags, the chosen interface, the reason for it, the reason about `spare`, and the public
    // address.
    for (flags, chosen, reason, spare, public) in [
        (
            &[][..],
            "eth0",
            "the IPv4 default route goes through it",
            "the IPv4 default route goes through eth0",
            "192.168.0.2",
        ),
        (
            &["-iface", "spare", "-iface=lan"],
            "lan",
            "--iface lan matches it",
            "--iface spare matches it, but it has no IPv4 address of global scope",
            "10.9.0.1",
        ),
        (
            &["--iface-regex=^10\\."],
            "lan",
            "--iface-regex ^10\\. matches it",
            "no --iface or --iface-regex matches it",
            "10.9.0.1",
        ),
        (
            &["--iface-can-reach", "10.9.0.7"],
            "lan",
            "10.9.0.7 is reached through it (--iface-can-reach)",
            "10.9.0.7 is reached through lan (--iface-can-reach)",
            "10.9.0.1",
        ),
        (
            &["--public-ip=10.9.0.1"],
            "lan",
            "it has the address of --public-ip 10.9.0.1",
            "the address of --public-ip 10.9.0.1 is on lan",
            "10.9.0.1",
        ),
        (
            &["--public-ip=203.0.113.1", "--iface=eth0"],
            "eth0",
            "--iface eth0 matches it",
            "no --iface or --iface-regex matches it",
            "203.0.113.1",
        ),
    ] {
        let answer = explain(flags);
        assert_eq!(answer.code, Some(0), "{flags:?}: {answer:?}");
        assert!(answer.stdout.starts_with("families  IPv4, by the network config\n"), "{answer:?}");
        let row = answer.row(chosen, 6);
        assert_eq!((row[1].as_str(), row[4].as_str(), row[5].as_str()), ("up", "yes", reason));
        let row = answer.row("spare", 6);
        assert_eq!((row[1].as_str(), row[4].as_str(), row[5].as_str()), ("down", "no", spare));
        let result = format!("\ninterface {chosen}, mtu 1500, public address {public}\n");
        assert!(answer.stdout.ends_with(&result), "{}", answer.stdout);
    }

    let answer = explain(&["--iface=spare"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.stdout.contains("heddled cannot start: interface spare has no IPv4 address"));
}

#[test]
fn explain_iface_reads_environment_file() {
    let cluster = Cluster::new(Families::Dual);
    let host = cluster.host("a");
    host.namespace().ip("link add name lan type bridge").unwrap();
    let file = cluster.lab().directory().join("heddled.default");
    let endpoint = cluster.etcd().endpoint();
    let variables = format!("FLANNELD_ETCD_ENDPOINTS={endpoint}\nFLANNELD_IFACE=\"lan\"\n");
    std::fs::write(&file, variables).unwrap();
    let flag = format!("--environment-file={}", file.display());
    let answer = explain(&host, &[&flag]);
    assert!(
        answer.stdout.starts_with("families  IPv4,IPv6, by the network config\n"),
        "{answer:?}"
    );
    assert_eq!((answer.code, answer.row("lan", 6)[4].as_str()), (Some(1), "yes"));
    let answer = explain(&host, &[&flag, "-iface", "eth0"]);
    assert_eq!((answer.code, answer.row("eth0", 6)[4].as_str()), (Some(0), "yes"));
    assert!(answer.stdout.ends_with("public address 192.168.0.2,fd00::2\n"), "{}", answer.stdout);

    let answer = explain(&host, &["--etcd-endpoints=http://127.0.0.1:1"]);
    assert!(answer.stdout.starts_with("families  IPv4, assumed: "), "{}", answer.stdout);
    let answer = explain(&host, &["--no-such-flag"]);
    assert_eq!(answer.code, Some(2));
    assert!(answer.stderr.contains("--no-such-flag"), "{}", answer.stderr);
}

#[test]
fn man_pages_and_completions_are_generated() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(heddle());
    command.args([OsString::from("manual"), directory.path().into()]);
    let answer = run(command, "");
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(read("man/heddled.8").contains("etcd"));
    assert!(read("man/heddle-status.1").contains("json"));
    // A script with a syntax error is worse than none.
    for name in ["heddle", "heddled"] {
        let script = directory.path().join("completions/bash").join(name);
        let mut bash = Command::new("bash");
        bash.arg("-n").arg(script);
        assert_eq!(run(bash, "").code, Some(0));
    }
}

/// A change of the network config takes effect at each node's next start, which the operator
/// chooses. It is reported at once, and a running node continues unchanged.
#[test]
fn row_16_changed_network_config_is_applied_at_next_start() {
    let cluster = Cluster::new(Families::V4);
    let (mut a, b) = (cluster.node("a"), cluster.node("b"));
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    in_a.ping(in_b.addresses()[0], 56).unwrap();
    let stream = in_a.ping_stream(in_b.addresses()[0]).unwrap();
    stream.wait_answers(20).unwrap();
    let kernel = a.objects("flannel.1");
    let superseded = |node: &Node, says: Option<&str>| {
        wait_status(node, &format!("superseded: {says:?}"), |status| {
            match (status["superseded"].as_str(), says) {
                (found, None) => found.is_none(),
                (Some(found), Some(says)) => found.contains(says),
                (None, Some(_)) => false,
            }
        });
    };
    superseded(&a, None);
    let put = |config: &str| cluster.store().put_config(config).unwrap();

    put(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":7}}"#);
    superseded(&a, Some(CHANGED));
    superseded(&b, Some(CHANGED));
    a.daemon().wait_log(&[&format!("network config: {CHANGED}")], SOON).unwrap();
    let status = ask(&a.host, &["status"]);
    assert!(status.stdout.contains("until it restarts"), "{status:?}");

    put(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":"x"}}"#);
    superseded(&a, Some(r#"`Backend.VNI` added ("x")"#));
    put("{");
    superseded(&a, Some("not a JSON object"));
    cluster.store().put_config(&Families::V4.config()).unwrap();
    superseded(&a, None);
    a.daemon().wait_log(&["network config: matches the running one again"], SOON).unwrap();

    assert_eq!(a.objects("flannel.1"), kernel);
    assert!(a.daemon().health("/readyz").unwrap().0 == 200);
    stream.wait_answers(20).unwrap();
    let pings = stream.finish().unwrap();
    assert!(pings.lost.is_empty(), "{pings:?}");

    put(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":7}}"#);
    assert_eq!(a.stop(Signal::TERM), Some(0));
    cluster.restart(&mut a);
    superseded(&a, None);
    assert!(!a.link("flannel.7").is_null() && a.link("flannel.1").is_null());
}
