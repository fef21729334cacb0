//! flannel's command line, tested on the daemon's process.

use std::process::{Command, Output};

use heddle_lab::{Families, wait_until};
use heddle_tests::{Cluster, SOON, heddled};

/// Runs a daemon that should exit by itself.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(heddled()).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn version_flag_prints_version() {
    for flag in ["--version", "-version"] {
        let (code, stdout, _) = run(&[flag]);
        assert_eq!(code, Some(0));
        assert_eq!(stdout, format!("heddled {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn help_lists_every_flannel_flag() {
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for flag in [
        "etcd-endpoints",
        "etcd-prefix",
        "etcd-keyfile",
        "etcd-certfile",
        "etcd-cafile",
        "etcd-username",
        "etcd-password",
        "iface",
        "iface-regex",
        "iface-can-reach",
        "public-ip",
        "public-ipv6",
        "subnet-file",
        "subnet-lease-renew-margin",
        "ip-masq",
        "ip-masq-fully-random-disable",
        "iptables-resync",
        "iptables-forward-rules",
        "ip-blackhole-route",
        "healthz-ip",
        "healthz-port",
        "kube-subnet-mgr",
        "version",
    ] {
        assert!(stdout.contains(&format!("--{flag}")), "--{flag} is missing");
    }
}

#[test]
fn bad_flag_value_exits_and_names_the_flag() {
    for (arguments, named) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["--healthz-port=99999"], "--healthz-port"),
        (&["-subnet-lease-renew-margin", "0"], "--subnet-lease-renew-margin"),
        (&["--subnet-lease-renew-margin=1440"], "--subnet-lease-renew-margin"),
        (&["--public-ip=fd00::1"], "--public-ip"),
        (&["--public-ipv6=192.168.0.1"], "--public-ipv6"),
        (&["--iface-can-reach=nowhere"], "--iface-can-reach"),
        (&["--iface-regex=("], "--iface-regex"),
        (&["--ip-masq=maybe"], "--ip-masq"),
        (&["--node-id=a b"], "--node-id"),
        (&["--store=consul"], "--store"),
        (&["--kube-subnet-mgr"], "not supported yet"),
        (&["--etcd-endpoints=ftp://10.0.0.1"], "--etcd-endpoints"),
        (&["--etcd-endpoints=http://10.0.0.1,https://10.0.0.2"], "--etcd-endpoints"),
        (&["--etcd-cafile=/etc/ca.pem"], "--etcd-cafile"),
    ] {
        let (code, _, stderr) = run(arguments);
        // The unit does not restart a daemon that ends with 2.
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
    }
}

#[test]
fn bad_environment_variable_is_named() {
    let output = Command::new(heddled()).env("FLANNELD_HEALTHZ_PORT", "x").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("FLANNELD_HEALTHZ_PORT"), "{stderr}");
}

#[test]
fn single_dash_flags_and_environment_variables_work() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    let file = host.directory().join("subnet.env");
    let mut command = Command::new(heddled());
    command
        .args([
            "-etcd-endpoints",
            cluster.etcd().endpoint(),
            "-node-id=a",
            "-ip-masq",
            "-iface",
            "eth0",
        ])
        .arg(format!("-state-dir={}", host.directory().join("state").display()))
        .arg(format!("-cache-dir={}", host.directory().join("cache").display()))
        .arg(format!("-control-socket={}", host.control_socket().display()))
        .env("FLANNELD_SUBNET_FILE", &file)
        .env("FLANNELD_HEALTHZ_PORT", "9999")
        .env("FLANNELD_PUBLIC_IP", "203.0.113.7");
    let mut daemon = host.start(command).unwrap();
    daemon.wait_ready().unwrap();
    let env = std::fs::read_to_string(file).unwrap();
    assert!(env.ends_with("FLANNEL_IPMASQ=true\n"), "{env}");
    assert_eq!(daemon.health_at("http://127.0.0.1:9999/readyz").unwrap().0, 200);
    // The health port listens on all addresses by default, like flannel's.
    assert_eq!(daemon.health_at(&format!("http://{}:9999/healthz", host.v4())).unwrap().0, 200);
    let lease = cluster.find_lease("a").unwrap();
    assert!(lease.value.starts_with(r#"{"PublicIP":"203.0.113.7","#), "{}", lease.value);
}

#[test]
fn other_etcd_prefix_is_another_network() {
    let cluster = Cluster::new(Families::V4);
    cluster
        .etcd()
        .put("/other/config", r#"{"Network":"10.9.0.0/16","Backend":{"Type":"vxlan","VNI":9}}"#)
        .unwrap();
    let mut node = cluster.starting_node("a", &["--etcd-prefix=/other"]);
    node.daemon().wait_ready().unwrap();
    assert!(!node.link("flannel.9").is_null());
    assert_eq!(cluster.etcd().list("/other/subnets/").unwrap().len(), 1);
    assert!(cluster.etcd().leases().unwrap().is_empty());
}

#[test]
fn unresponsive_endpoints_are_skipped() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    let mut command = Command::new(heddled());
    command
        .arg(format!("--etcd-endpoints=http://127.0.0.1:4001,{}", cluster.etcd().endpoint()))
        .args(["--node-id=a".to_owned(), format!("--subnet-file={}", host.subnet_file().display())])
        .arg(format!("--state-dir={}", host.directory().join("state").display()))
        .arg(format!("--cache-dir={}", host.directory().join("cache").display()))
        .arg(format!("--control-socket={}", host.control_socket().display()));
    host.start(command).unwrap().wait_ready().unwrap();
}

/// Starts a daemon with these flags on a host with a second interface `eth1` (10.5.0.1), and
/// returns the chosen device and the public address.
fn chosen(flags: &[&str]) -> (String, String) {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    cluster.lab().connect(&host, "eth1", &["10.5.0.1/24".to_owned()]).unwrap();
    host.namespace().ip("route add 10.6.0.0/16 via 10.5.0.254 dev eth1").unwrap();
    let mut command = cluster.heddled(&host);
    command.args(flags);
    let mut daemon = host.start(command).unwrap();
    daemon.wait_ready().unwrap();
    let links: Vec<serde_json::Value> =
        host.namespace().json("ip", "-d -j link show flannel.1").unwrap();
    let data = &links[0]["linkinfo"]["info_data"];
    let lease: serde_json::Value =
        serde_json::from_str(&cluster.find_lease("a").unwrap().value).unwrap();
    assert_eq!(data["local"], lease["PublicIP"]);
    (data["link"].as_str().unwrap().to_owned(), data["local"].as_str().unwrap().to_owned())
}

#[test]
fn interface_flags_and_default_route_choose_interface() {
    let eth1 = ("eth1".to_owned(), "10.5.0.1".to_owned());
    for flags in [
        &["--iface=eth1"][..],
        &["--iface=10.5.0.1"],
        &["--iface=nothere", "--iface=eth1"],
        &["--iface-regex=^10\\.5\\."],
        &["--iface-regex=1$"],
        &["--iface=nothere", "--iface-regex=^eth1$"],
        &["--iface-can-reach=10.6.7.8"],
    ] {
        assert_eq!(chosen(flags), eth1, "{flags:?}");
    }
    assert_eq!(chosen(&[]).0, "eth0");
}

#[test]
fn missing_interface_exits_and_lists_interfaces() {
    let cluster = Cluster::new(Families::V4);
    for (number, (flag, texts)) in [
        ("--iface=eth7", ["eth7", "eth0"]),
        ("--iface-regex=^wlan", ["^wlan", "eth0"]),
        ("--iface-can-reach=203.0.113.9", ["--iface-can-reach", "203.0.113.9"]),
    ]
    .into_iter()
    .enumerate()
    {
        let host = cluster.host(&format!("n{number}"));
        host.namespace().ip("route add unreachable 203.0.113.0/24").unwrap();
        let mut command = cluster.heddled(&host);
        command.arg(flag);
        let mut daemon = host.start(command).unwrap();
        assert!(!daemon.wait_exit(SOON).unwrap().success(), "{flag}");
        let log = daemon.log();
        assert!(texts.iter().all(|text| log.contains(text)), "{flag}: {log}");
    }
}

#[test]
fn default_routes_on_two_interfaces_are_refused() {
    let cluster = Cluster::new(Families::Dual);
    let host = cluster.host("a");
    cluster
        .lab()
        .connect(&host, "eth1", &["10.5.0.1/24".to_owned(), "fd05::1/64".to_owned()])
        .unwrap();
    host.namespace().ip("-6 route replace default via fd05::ffff dev eth1").unwrap();
    let _ = host.namespace().ip("-6 route del default dev eth0");
    let mut daemon = host.start(cluster.heddled(&host)).unwrap();
    assert!(!daemon.wait_exit(SOON).unwrap().success());
    let log = daemon.log();
    assert!(log.contains("eth0") && log.contains("eth1") && log.contains("--iface"), "{log}");
    drop(daemon);

    let mut command = cluster.heddled(&host);
    command.arg("--iface=eth0");
    host.start(command).unwrap().wait_ready().unwrap();
}

#[test]
fn node_id_is_kept_in_state_directory() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    let start = || {
        let mut command = Command::new(heddled());
        command
            .arg(format!("--etcd-endpoints={}", cluster.etcd().endpoint()))
            .arg(format!("--subnet-file={}", host.subnet_file().display()))
            .arg(format!("--state-dir={}", host.directory().join("state").display()))
            .arg(format!("--cache-dir={}", host.directory().join("cache").display()))
            .arg(format!("--control-socket={}", host.control_socket().display()));
        host.start(command).unwrap().wait_ready().unwrap();
        wait_until("the lease", SOON, || {
            let leases = cluster.etcd().leases().unwrap();
            let value = leases.into_values().next().ok_or("there is none")?;
            let value: serde_json::Value = serde_json::from_str(&value).unwrap();
            value["NodeID"].as_str().map(str::to_owned).ok_or("no NodeID")
        })
        .unwrap()
    };
    let id = start();
    assert_eq!(start(), id);
    let kept = host.directory().join("state/coreos.com-network/node-id");
    assert_eq!(std::fs::read_to_string(kept).unwrap().trim(), id);
    assert_eq!(cluster.etcd().leases().unwrap().len(), 1);
}
