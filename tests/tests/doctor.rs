//! `heddle doctor` reports each problem of a host until it is fixed, and prints nothing on a
//! healthy host.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use heddle_lab::{Clients, Container, Error, Etcd, Families, Host, Lab, PREFIX, wait_until};
use heddle_tests::{Authority, Cluster, Node, Overlay, SOON, heddle};
use serde_json::Value;

/// Result of a doctor run.
#[derive(Debug)]
struct Diagnosis {
    code: Option<i32>,
    report: Value,
}

impl Diagnosis {
    fn findings(&self) -> &[Value] {
        self.report["findings"].as_array().unwrap()
    }

    /// Asserts that the check has a finding that contains all these texts.
    fn names(&self, check: &str, texts: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        let found = self.findings().iter().any(|finding| {
            let says = finding.to_string();
            finding["check"] == check && texts.iter().all(|text| says.contains(text))
        });
        assert!(found, "{check} with {texts:?} in {self:#?}");
        for field in ["problem", "symptom", "remedy"] {
            assert!(self.findings().iter().all(|finding| finding[field] != ""), "{self:#?}");
        }
    }

    /// Asserts that this check has one finding, and that there is no other.
    fn names_only(&self, check: &str, texts: &[&str]) {
        self.names(check, texts);
        assert_eq!(self.findings().len(), 1, "{self:#?}");
        assert_eq!(self.report["skipped"], Value::Array(vec![]), "{self:#?}");
    }
}

/// Returns the doctor's command line: options, and the flags of the host's daemon followed by more.
fn doctor(cluster: &Cluster, host: &Host, options: &[&str], flags: &[&str]) -> Command {
    let daemon = cluster.heddled(host);
    let mut command = Command::new(heddle());
    command.arg("doctor").args(options).args(daemon.get_args()).args(flags);
    // Do not read the environment file of a Heddle that may be installed on this machine.
    command.arg("--environment-file=-/no/such/file");
    command
}

fn run(host: &Host, command: Command) -> (Option<i32>, String) {
    match host.namespace().run(command) {
        Ok(printed) => (Some(0), printed),
        Err(Error::Failed { status, stderr, .. }) => (status.code(), stderr),
        Err(error) => panic!("{error}"),
    }
}

fn diagnose_with(cluster: &Cluster, host: &Host, flags: &[&str]) -> Diagnosis {
    let (code, printed) = run(host, doctor(cluster, host, &["--json"], flags));
    let report = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e} in {printed}"));
    Diagnosis { code, report }
}

fn diagnose(cluster: &Cluster, host: &Host) -> Diagnosis {
    diagnose_with(cluster, host, &[])
}

/// Asserts that the doctor prints nothing and exits with code 0.
fn assert_healthy_with(cluster: &Cluster, host: &Host, flags: &[&str]) {
    let (code, printed) = run(host, doctor(cluster, host, &[], flags));
    assert_eq!((code, printed.as_str()), (Some(0), ""), "{}", host.name());
}

fn assert_healthy(cluster: &Cluster, host: &Host) {
    assert_healthy_with(cluster, host, &[]);
}

/// Starts two nodes with a container each.
fn two_nodes(cluster: &Cluster) -> ([Node; 2], [Container; 2]) {
    let nodes = cluster.nodes(["alpha", "beta"]);
    let containers = [nodes[0].host.container().unwrap(), nodes[1].host.container().unwrap()];
    (nodes, containers)
}

fn reaches(containers: &[Container; 2]) -> bool {
    let target = Overlay::V4.address_in(&containers[1]);
    containers[0].ping(target, 56).is_ok()
}

#[test]
fn healthy_node_of_every_backend_has_no_findings() {
    for families in [Families::V4, Families::Dual] {
        for backend in ["vxlan", "host-gw", "udp", "vxlan-tun", "alloc"] {
            let cluster = Cluster::with_backend(families, backend);
            let before = cluster.host("before");
            assert_healthy(&cluster, &before);
            let (nodes, _containers) = two_nodes(&cluster);
            for node in &nodes {
                assert_healthy(&cluster, &node.host);
            }
            let diagnosis = diagnose(&cluster, &nodes[0].host);
            assert_eq!(diagnosis.code, Some(0));
            assert_eq!(diagnosis.report.to_string(), r#"{"findings":[],"skipped":[]}"#);
        }
    }
}

#[test]
fn masquerading_node_with_more_emitters_is_healthy() {
    let cluster = Cluster::new(Families::Dual);
    let flags = ["--ip-masq", "--ip-blackhole-route"];
    let mut node = cluster.starting_node("alpha", &flags);
    node.daemon().wait_ready().unwrap();
    let _container = node.host.container().unwrap();
    assert_healthy_with(&cluster, &node.host, &flags);
}

#[test]
fn port_used_by_program_is_reported() {
    for (backend, port) in [("vxlan", 8472), ("udp", 8285)] {
        let cluster = Cluster::with_backend(Families::V4, backend);
        let host = cluster.host("alpha");
        let socket = host.namespace().udp_socket(SocketAddr::from(([0, 0, 0, 0], port)));
        let process = format!("(process {})", std::process::id());
        let port = format!("UDP port {port} is taken by ");
        diagnose(&cluster, &host).names_only("udp-port", &[&port, &process]);
        drop(socket);
        assert_healthy(&cluster, &host);
    }
}

#[test]
fn port_used_by_other_device_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    let device = |options: &str| {
        host.namespace().ip(&format!("link add other type vxlan dstport 8472 {options}")).unwrap();
        host.namespace().ip("link set other up").unwrap();
    };
    device("id 1 dev eth0");
    let texts = ["VNI 1 on UDP port 8472 is taken by the VXLAN device other"];
    diagnose(&cluster, &host).names_only("udp-port", &texts);
    host.namespace().ip("link delete other").unwrap();
    device("external");
    let texts = ["UDP port 8472 is taken by the VXLAN device other"];
    diagnose(&cluster, &host).names_only("udp-port", &texts);
    host.namespace().ip("link delete other").unwrap();
    // The kernel uses one socket for both devices.
    device("id 2 dev eth0");
    assert_healthy(&cluster, &host);
}

#[test]
fn missing_tun_device_is_reported() {
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let host = cluster.host("alpha");
    let healthy = doctor(&cluster, &host, &["--json"], &[]);
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", r#"mount -t tmpfs none /dev/net && exec "$0" "$@""#]);
    hidden.arg(healthy.get_program()).args(healthy.get_args());
    let (code, printed) = run(&host, hidden);
    let diagnosis = Diagnosis { code, report: serde_json::from_str(&printed).unwrap() };
    diagnosis.names_only("kernel-support", &["/dev/net/tun", "modprobe tun"]);
    assert_healthy(&cluster, &host);
}

#[test]
fn mtu_too_large_for_underlay_is_reported() {
    let config =
        |mtu| format!(r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"vxlan","MTU":{mtu}}}}}"#);
    let cluster = Cluster::with_config(Families::V4, Some(&config(9000)));
    let host = cluster.host("alpha");
    let texts = ["flannel.1 would have an MTU of 8950", "eth0 carries 1500"];
    diagnose(&cluster, &host).names_only("mtu", &texts);
    host.namespace().ip("link set eth0 mtu 9000").unwrap();
    assert_healthy(&cluster, &host);
}

#[test]
fn device_of_another_underlay_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let node = cluster.node("alpha");
    node.ip("link set eth0 mtu 1400");
    let texts = ["flannel.1 has an MTU of 1450", "eth0", "require 1350"];
    diagnose(&cluster, &node.host).names_only("mtu", &texts);
    node.ip("link set eth0 mtu 1500");
    assert_healthy(&cluster, &node.host);
}

#[test]
fn container_mtu_above_overlay_mtu_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let (nodes, _containers) = two_nodes(&cluster);
    nodes[0].ip("link set veth0 mtu 1500");
    let diagnosis = diagnose(&cluster, &nodes[0].host);
    diagnosis.names_only("mtu", &["docker0", "1450", "veth0 with 1500", "warning"]);
    nodes[0].ip("link set veth0 mtu 1450");
    assert_healthy(&cluster, &nodes[0].host);
}

#[test]
fn dropping_forward_chain_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let (nodes, containers) = two_nodes(&cluster);
    let nft = |arguments: &[&str]| {
        let mut command = Command::new("nft");
        command.args(arguments);
        nodes[0].host.namespace().run(command).unwrap();
    };
    nft(&["add table inet guard"]);
    nft(&["add chain inet guard passage { type filter hook forward priority 0; policy drop; }"]);
    assert!(!reaches(&containers));
    let texts = ["policy of chain passage", "inet guard", "nft list chain inet guard passage"];
    diagnose(&cluster, &nodes[0].host).names_only("forward", &texts);
    nft(&["delete table inet guard"]);
    assert!(reaches(&containers));
    assert_healthy(&cluster, &nodes[0].host);
}

/// Runs shell commands in a host's namespace.
fn shell(host: &Host, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    host.namespace().run(command).unwrap();
}

#[test]
fn dropping_input_or_output_policy_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let (nodes, containers) = two_nodes(&cluster);
    let [alpha, beta] = &nodes;
    let accept = |chain: &str, option: &str| {
        format!("-I {chain} {option} eth0 -p udp --dport 8472 -j ACCEPT")
    };
    for (iptables, chain, option, texts) in [
        ("iptables-nft", "INPUT", "-i", ["policy of chain INPUT", "sends to UDP port 8472"]),
        ("iptables-legacy", "OUTPUT", "-o", ["policy of chain OUTPUT", "UDP port 8472 of"]),
    ] {
        // The store stays reachable.
        shell(
            &alpha.host,
            &format!("{iptables} -A {chain} -p tcp -j ACCEPT; {iptables} -P {chain} DROP"),
        );
        assert!(!reaches(&containers));
        let remedy = format!("{iptables} {}", accept(chain, option));
        let peer = beta.host.v4().to_string();
        let diagnosis = diagnose(&cluster, &alpha.host);
        diagnosis.names_only("firewall", &[texts[0], texts[1], &remedy, &peer]);
        // The command of the remedy, as it stands.
        shell(&alpha.host, &remedy);
        assert!(reaches(&containers));
        assert_healthy(&cluster, &alpha.host);
        shell(&alpha.host, &format!("{iptables} -F {chain}; {iptables} -P {chain} ACCEPT"));
    }
}

/// Chains that firewalld 1.3 creates for an interface in its zone `public`.
const FIREWALLD: &str = "
add table inet firewalld
add chain inet firewalld filter_INPUT { type filter hook input priority 10; policy accept; }
add chain inet firewalld filter_INPUT_ZONES
add chain inet firewalld filter_IN_public
add chain inet firewalld filter_IN_public_allow
add rule inet firewalld filter_INPUT ct state { established, related } accept
add rule inet firewalld filter_INPUT ct status dnat accept
add rule inet firewalld filter_INPUT iifname lo accept
add rule inet firewalld filter_INPUT jump filter_INPUT_ZONES
add rule inet firewalld filter_INPUT ct state { invalid } drop
add rule inet firewalld filter_INPUT reject with icmpx type admin-prohibited
add rule inet firewalld filter_INPUT_ZONES goto filter_IN_public
add rule inet firewalld filter_IN_public jump filter_IN_public_allow
add rule inet firewalld filter_IN_public meta l4proto { icmp, ipv6-icmp } accept
add rule inet firewalld filter_IN_public reject with icmpx type admin-prohibited
add rule inet firewalld filter_IN_public_allow tcp dport 22 accept
";

#[test]
fn zone_of_firewalld_without_the_port_is_reported() {
    for (families, peers) in [(Families::V4, 1), (Families::Dual, 2)] {
        let cluster = Cluster::new(families);
        let (nodes, containers) = two_nodes(&cluster);
        let alpha = &nodes[0].host;
        shell(alpha, &format!("nft -f - <<'END'{FIREWALLD}END"));
        assert!(!reaches(&containers));
        let diagnosis = diagnose(&cluster, alpha);
        let texts = [
            "rule 3 (handle ",
            "chain filter_IN_public in table inet firewalld",
            "firewall-cmd --permanent --zone=public --add-port=8472/udp",
        ];
        diagnosis.names("firewall", &texts);
        assert_eq!(diagnosis.findings().len(), peers, "{diagnosis:#?}");
        // What firewalld does then.
        shell(alpha, "nft add rule inet firewalld filter_IN_public_allow udp dport 8472 accept");
        assert!(reaches(&containers));
        assert_healthy(&cluster, alpha);
    }
}

#[test]
fn rule_that_may_accept_is_no_finding() {
    let cluster = Cluster::new(Families::V4);
    let (nodes, containers) = two_nodes(&cluster);
    let alpha = &nodes[0].host;
    let table = "add table inet guard; add chain inet guard entry { type filter hook input priority 0; policy drop; }";
    shell(
        alpha,
        &format!("nft '{table}'; nft add rule inet guard entry limit rate 10000/second accept"),
    );
    assert!(reaches(&containers));
    assert_healthy(&cluster, alpha);
}

#[test]
fn docker_forward_policy_without_forward_rules_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let unanswered = ["--iptables-forward-rules=false"];
    let mut node = cluster.starting_node("alpha", &unanswered);
    node.daemon().wait_ready().unwrap();
    let policy = |policy: &str| {
        let mut command = Command::new("iptables");
        command.args(["-w", "-P", "FORWARD", policy]);
        node.host.namespace().run(command).unwrap();
    };
    policy("DROP");
    let diagnosis = diagnose_with(&cluster, &node.host, &unanswered);
    diagnosis.names_only("forward", &["policy of chain FORWARD", "--iptables-forward-rules"]);
    policy("ACCEPT");
    assert_healthy_with(&cluster, &node.host, &unanswered);
}

#[test]
fn strict_rp_filter_that_drops_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let (nodes, containers) = two_nodes(&cluster);
    let [alpha, beta] = &nodes;
    let filter = |value| {
        let namespace = alpha.host.namespace();
        namespace.set_sysctl("ipv4/conf/all/rp_filter", "0").unwrap();
        namespace.set_sysctl("ipv4/conf/eth0/rp_filter", value).unwrap();
    };
    filter("1");
    assert!(reaches(&containers));
    assert_healthy(&cluster, &alpha.host);

    // A second interface, and a route to beta through it. Beta's route to alpha is unchanged: each
    // interface answers for its own address only.
    cluster.lab().connect(&alpha.host, "eth1", &["192.168.99.1/32".to_owned()]).unwrap();
    for (setting, value) in
        [("eth1/rp_filter", "0"), ("all/arp_ignore", "1"), ("all/arp_announce", "2")]
    {
        alpha.host.namespace().set_sysctl(&format!("ipv4/conf/{setting}"), value).unwrap();
    }
    alpha.ip(&format!("route add {} dev eth1", beta.host.v4()));
    assert!(!reaches(&containers));
    let peer = beta.host.v4().to_string();
    let texts = ["net.ipv4.conf.eth0.rp_filter = 1", &peer, "eth1"];
    diagnose(&cluster, &alpha.host).names_only("rp-filter", &texts);
    filter("2");
    assert!(reaches(&containers));
    assert_healthy(&cluster, &alpha.host);
}

#[test]
fn expired_or_mismatched_certificates_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let lab = Lab::new(Families::V4).unwrap();
    let server = |address| authority.issue("server", Some(address));
    let etcd = Etcd::start_with_tls(&lab, Clients::Known, server).unwrap();
    let cluster = Cluster::with_etcd(lab, etcd);
    let host = cluster.host("alpha");

    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let files = authority.issue_until("client", None, yesterday);
    let flags = [
        format!("--etcd-cafile={}", files.authority.display()),
        format!("--etcd-certfile={}", files.certificate.display()),
        format!("--etcd-keyfile={}", files.key.display()),
    ];
    let flags = flags.each_ref().map(String::as_str);
    let certificate = files.certificate.display().to_string();
    let diagnosis = diagnose_with(&cluster, &host, &flags);
    diagnosis.names("certificate", &["CN=client has expired", &certificate, "--etcd-certfile"]);
    diagnosis.names("store", &["https://", "certificate"]);

    authority.issue("client", None);
    assert_healthy_with(&cluster, &host, &flags);

    let other = authority.issue("other", None);
    fs::copy(other.key, &files.key).unwrap();
    let diagnosis = diagnose_with(&cluster, &host, &flags);
    diagnosis.names("certificate", &["is the key of another certificate", "--etcd-keyfile"]);
    fs::remove_file(&files.key).unwrap();
    let key = files.key.display().to_string();
    let diagnosis = diagnose_with(&cluster, &host, &flags);
    diagnosis.names("certificate", &[&key, "cannot be read", "--etcd-keyfile"]);
}

#[test]
fn unreachable_etcd_and_unusable_config_are_reported() {
    let mut cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    let endpoint = cluster.etcd().endpoint().to_owned();
    cluster.etcd_mut().stop();
    diagnose(&cluster, &host).names("store", &[&endpoint, "connection refused"]);
    cluster.etcd_mut().resume().unwrap();
    assert_healthy(&cluster, &host);

    let key = format!("{PREFIX}/config");
    cluster.etcd().delete(&key).unwrap();
    let command = format!("etcdctl put {key} ");
    let missing = format!("{key} does not exist");
    diagnose(&cluster, &host).names("network-config", &[&missing, &command]);
    for (config, check, texts) in [
        ("{", "network-config", &["not a JSON object"][..]),
        (r#"{"Network":"10.244.0.0/30"}"#, "network-config", &["`Network`"]),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","Port":"x"}}"#,
            "network-config",
            &["Backend.Port"],
        ),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wormhole"}}"#,
            "plugin",
            &["wormhole", "Backend.Type"],
        ),
    ] {
        cluster.store().put_config(config).unwrap();
        let texts: Vec<_> = texts.iter().copied().chain([key.as_str()]).collect();
        diagnose(&cluster, &host).names(check, &texts);
    }
    cluster.store().put_config(&Families::V4.config()).unwrap();
    assert_healthy(&cluster, &host);
}

#[test]
fn docker_bridge_of_earlier_subnet_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let (nodes, _containers) = two_nodes(&cluster);
    let subnet = cluster.subnet(&nodes[0], Overlay::V4);
    let right = format!("{}/24", nodes[0].host.subnet_env().unwrap().subnets[0].addr());
    nodes[0].ip(&format!("address delete {right} dev docker0"));
    nodes[0].ip("address add 10.244.250.1/24 dev docker0");
    let texts = ["docker0 has 10.244.250.1/24", &subnet.to_string(), "systemctl restart docker"];
    diagnose(&cluster, &nodes[0].host).names_only("docker-bridge", &texts);
    nodes[0].ip("address delete 10.244.250.1/24 dev docker0");
    nodes[0].ip(&format!("address add {right} dev docker0"));
    assert_healthy(&cluster, &nodes[0].host);
}

#[test]
fn disabled_ip_forwarding_is_reported() {
    let cluster = Cluster::new(Families::Dual);
    let (nodes, _containers) = two_nodes(&cluster);
    let namespace = nodes[0].host.namespace();
    for (file, name) in [
        ("ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
    ] {
        namespace.set_sysctl(file, "0").unwrap();
        let command = format!("sysctl -w {name}=1");
        diagnose(&cluster, &nodes[0].host).names_only("ip-forward", &[name, &command]);
        namespace.set_sysctl(file, "1").unwrap();
    }
    assert_healthy(&cluster, &nodes[0].host);
}

#[test]
fn host_network_inside_overlay_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let (nodes, _containers) = two_nodes(&cluster);
    let host = &nodes[0].host;
    let address = vec!["10.244.240.9/20".to_owned()];
    cluster.lab().connect(host, "eth1", &address).unwrap();
    let texts = ["10.244.0.0/16 overlaps 10.244.240.0/20, which is connected to eth1"];
    diagnose(&cluster, host).names_only("overlap", &texts);
    nodes[0].ip("link delete eth1");
    nodes[0].ip("route add 10.244.240.0/20 via 192.168.255.254 dev eth0 metric 100");
    diagnose(&cluster, host).names_only("overlap", &["route to 10.244.240.0/20 through eth0"]);
    nodes[0].ip("route delete 10.244.240.0/20");
    // Routes with shorter prefixes than the peers' do no harm.
    nodes[0].ip("route add 10.0.0.0/8 via 192.168.255.254 dev eth0");
    assert_healthy(&cluster, host);
}

#[test]
fn address_of_another_node_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let alpha = cluster.node("alpha");
    let clone = cluster.host("clone");
    let address = alpha.host.v4().to_string();
    let flag = format!("--public-ip={address}");
    let command = format!("heddle lease release {}", cluster.subnet(&alpha, Overlay::V4));
    let diagnosis = diagnose_with(&cluster, &clone, &[&flag, "--iface=eth0"]);
    diagnosis.names("public-address", &[&address, "node id alpha", &command]);
    assert_healthy(&cluster, &clone);
}

#[test]
fn address_behind_nat_is_reported_with_host_gw() {
    let cluster = Cluster::with_backend(Families::V4, "host-gw");
    let host = cluster.host("alpha");
    let diagnosis = diagnose_with(&cluster, &host, &["--public-ip=203.0.113.7"]);
    diagnosis.names("network-config", &["203.0.113.7 is not an address of eth0"]);
}

#[test]
fn missing_interface_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    let diagnosis = diagnose_with(&cluster, &host, &["--iface=eth7"]);
    diagnosis.names("interface", &["--iface eth7", "eth0 (192.168."]);
}

#[test]
fn foreign_device_of_same_name_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    host.namespace().ip("link add name flannel.1 type bridge").unwrap();
    let texts =
        ["device flannel.1 was not created by heddled (kind bridge)", "ip link delete flannel.1"];
    diagnose(&cluster, &host).names_only("device-name", &texts);
    host.namespace().ip("link delete flannel.1").unwrap();
    assert_healthy(&cluster, &host);
}

#[test]
fn unwritable_file_and_bad_emitter_setting_are_reported() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    let in_the_way = host.directory().join("file");
    fs::write(&in_the_way, "").unwrap();
    let flag = format!("--subnet-file={}/subnet.env", in_the_way.display());
    let texts = [&in_the_way.display().to_string(), "is not a directory"];
    diagnose_with(&cluster, &host, &[&flag]).names_only("files", &texts);
    fs::remove_file(&in_the_way).unwrap();
    assert_healthy_with(&cluster, &host, &[&flag]);
    let diagnosis = diagnose_with(&cluster, &host, &["--emit=subnet-env:pth=/x"]);
    diagnosis.names_only("files", &["--emit=subnet-env:pth=/x", "setting `pth` is unknown"]);
    assert_healthy(&cluster, &host);
}

#[test]
fn unready_daemon_is_reported_with_its_reason() {
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let host = cluster.host("alpha");
    let socket = host.namespace().udp_socket(SocketAddr::from(([0, 0, 0, 0], 8285))).unwrap();
    let mut daemon = host.start(cluster.heddled(&host)).unwrap();
    daemon.wait_log(&["packet path"], heddle_tests::SOON).unwrap();
    let diagnosis = diagnose(&cluster, &host);
    diagnosis.names("daemon", &["heddled is not ready, packet path: ", "8285"]);
    diagnosis.names("udp-port", &["UDP port 8285 is taken by "]);
    drop(socket);
    daemon.wait_ready().unwrap();
    assert_healthy(&cluster, &host);
}

#[test]
fn peers_that_do_not_answer_are_reported() {
    let cluster = Cluster::new(Families::V4);
    let mut alpha = cluster.starting_node("alpha", &["--probe-interval=1"]);
    alpha.daemon().wait_ready().unwrap();
    let beta = cluster.node("beta");
    assert_healthy(&cluster, &alpha.host);
    beta.ip("link set eth0 down");
    let silent = wait_until("a finding", SOON, || {
        let found = diagnose(&cluster, &alpha.host);
        if found.code == Some(0) { Err("none".to_owned()) } else { Ok(found) }
    });
    silent
        .unwrap()
        .names_only("peers", &["no answer over the overlay from 1 of 1 peer", "10.244."]);
    beta.ip("link set eth0 up");
    let healthy = || match diagnose(&cluster, &alpha.host).code {
        Some(0) => Ok(()),
        _ => Err("still a finding".to_owned()),
    };
    wait_until("no finding", SOON, healthy).unwrap();
}

#[test]
fn doctor_without_root_lists_skipped_checks() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    let tool = tempfile::tempdir().unwrap();
    let copy = tool.path().join("heddle");
    fs::copy(heddle(), &copy).unwrap();
    let as_root = doctor(&cluster, &host, &[], &[]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
    command.args(as_root.get_args());
    open(tool.path());
    open(cluster.lab().directory());
    open(host.directory());
    let (code, printed) = run(&host, command);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("not checked: forwarding rules, owners of UDP ports"), "{printed}");
    assert!(printed.contains("needs root"), "{printed}");
}

/// Makes a directory accessible to all users.
fn open(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn missing_instance_is_reported_alone() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    let mut command = Command::new(heddle());
    command.args(["doctor", "--json", "-i", "no-such-instance"]);
    let (code, printed) = run(&host, command);
    let diagnosis = Diagnosis { code, report: serde_json::from_str(&printed).unwrap() };
    let texts = ["no instance no-such-instance", "/etc/default/heddled@no-such-instance"];
    diagnosis.names_only("daemon", &texts);
}

#[test]
fn stopped_daemon_that_left_its_files_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("alpha");
    assert_healthy(&cluster, &node.host);
    assert_eq!(node.stop(heddle_lab::Signal::TERM), Some(0));
    let diagnosis = diagnose(&cluster, &node.host);
    let file = node.host.subnet_file().display().to_string();
    diagnosis.names_only("daemon", &["heddled is not running", &file]);
}

#[test]
fn subnet_file_of_two_daemons_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let node = cluster.node("alpha");
    let config = r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan","VNI":2,"Port":8473}}"#;
    cluster.etcd().put("/b/config", config).unwrap();
    let socket = node.host.control_socket().with_file_name("second.sock");
    let mut second = cluster.heddled(&node.host);
    second.arg("--etcd-prefix=/b").arg(format!("--control-socket={}", socket.display()));
    second.arg("--healthz-port=0");
    let _second = node.host.start(second).unwrap();
    let found = wait_until("a finding", SOON, || {
        let found = diagnose(&cluster, &node.host);
        let shared = found.report.to_string().contains("also written by the heddled");
        if shared { Ok(found) } else { Err(format!("{found:?}")) }
    });
    let file = node.host.subnet_file().display().to_string();
    found.unwrap().names("files", &[&file, "network /b", "--subnet-file"]);
}

#[test]
fn config_deleted_under_running_nodes_is_reported_as_such() {
    let cluster = Cluster::new(Families::V4);
    let node = cluster.node("alpha");
    cluster.etcd().delete(&format!("{PREFIX}/config")).unwrap();
    let diagnosis = diagnose(&cluster, &node.host);
    let texts = ["/config does not exist", "keeps the config that it started with", "same config"];
    diagnosis.names("network-config", &texts);
    assert!(!diagnosis.report.to_string().contains("etcdctl put"), "{diagnosis:#?}");
    cluster.store().put_config(&Families::V4.config()).unwrap();
    assert_healthy(&cluster, &node.host);
}
