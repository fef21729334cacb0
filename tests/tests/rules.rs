//! Firewall rules: the packets that they accept and masquerade, and their restoration.
//!
//! `runtime/firewall` compares the rules verbatim; these tests compare packets.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use heddle_lab::{Container, Daemon, Families, Host, Namespace, Signal, next_datagram, wait_until};
use heddle_tests::{Cluster, status};
use serde_json::Value;

/// Time limit for the restoration of rules whose deletion causes a notification.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Shortest `--iptables-resync`, for rules whose deletion causes no notification.
const RESYNC: &str = "--iptables-resync=1";

/// A resync interval so long that any restoration must come from a notification.
const NO_RESYNC: &str = "--iptables-resync=3600";

/// Variant of `iptables` on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    Nft,
    Legacy,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }

    /// Creates a directory in which `iptables` and related programs are of this variant, like with
    /// Debian's alternatives.
    fn alternatives(self, host: &Host) -> String {
        let directory = host.directory().join("alternatives");
        std::fs::create_dir_all(&directory).unwrap();
        for program in ["iptables", "ip6tables"] {
            for kind in ["", "-save", "-restore"] {
                let target = format!("/usr/sbin/{program}-{}{kind}", self.name());
                let link = directory.join(format!("{program}{kind}"));
                symlink(Path::new(&target), link).unwrap();
            }
        }
        directory.display().to_string()
    }
}

/// Runs a shell command on a host.
fn on(host: &Host, line: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", line]);
    host.namespace().run(command).unwrap()
}

fn config(nftables: bool) -> String {
    format!(r#"{{"Network":"10.244.0.0/16","EnableNFTables":{nftables}}}"#)
}

/// Starts a node on a host where `iptables` is of this variant.
fn start(cluster: &Cluster, host: &Host, flavour: Flavour, flags: &[&str]) -> Daemon {
    let mut command = cluster.heddled(host);
    let path = format!("{}:{}", flavour.alternatives(host), std::env::var("PATH").unwrap());
    command.args(flags).env("PATH", path);
    let mut daemon = host.start(command).unwrap();
    daemon.wait_ready().unwrap();
    daemon
}

fn ping(from: &Container, to: &Container) -> Result<String, heddle_lab::Error> {
    from.ping(to.addresses()[0], 56)
}

/// Sets FORWARD's policy to DROP, on one host before the daemon starts, on the other afterwards,
/// with `docker`'s variant of iptables. The daemon uses the variant `own`, or nftables.
fn drop_is_answered(own: Flavour, nftables: bool, docker: Flavour) {
    let cluster = Cluster::with_config(Families::V4, Some(&config(nftables)));
    let hosts = ["a", "b"].map(|name| cluster.host(name));
    let drop = format!("iptables-{} -P FORWARD DROP", docker.name());
    on(&hosts[0], &drop);
    let daemons = hosts.each_ref().map(|host| start(&cluster, host, own, &[RESYNC]));
    let [in_a, in_b] = hosts.each_ref().map(|host| host.container().unwrap());
    wait_until("a ping through the policy DROP that was there", AT_ONCE, || ping(&in_b, &in_a))
        .unwrap();
    on(&hosts[1], &drop);
    wait_until("a ping through the policy DROP that came", AT_ONCE + AT_ONCE, || {
        ping(&in_a, &in_b)
    })
    .unwrap();
    for (host, daemon) in hosts.iter().zip(&daemons) {
        let save = format!("iptables-{}-save", docker.name());
        let rules = on(host, &save);
        assert!(rules.contains(":FORWARD DROP"), "{rules}");
        assert_eq!(rules.matches("-j FLANNEL-FWD").count(), 1, "{rules}\n{}", daemon.log());
    }
}

#[test]
fn docker_forward_drop_is_overridden_with_iptables_nft() {
    drop_is_answered(Flavour::Nft, false, Flavour::Nft);
}

#[test]
fn docker_forward_drop_is_overridden_with_iptables_legacy() {
    drop_is_answered(Flavour::Legacy, false, Flavour::Legacy);
}

#[test]
fn docker_forward_drop_in_other_variant_is_overridden() {
    drop_is_answered(Flavour::Nft, false, Flavour::Legacy);
    drop_is_answered(Flavour::Legacy, false, Flavour::Nft);
}

#[test]
fn docker_forward_drop_is_overridden_with_nftables() {
    drop_is_answered(Flavour::Nft, true, Flavour::Nft);
    drop_is_answered(Flavour::Nft, true, Flavour::Legacy);
}

/// Lists a host's rules, without counters and comments.
fn rules(host: &Host, list: &str) -> Vec<String> {
    let printed = on(host, list);
    let rules = printed.lines().filter(|line| !line.starts_with('#'));
    rules.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}

/// Damages a host's rules, and waits until they are restored.
fn come_back(host: &Host, list: &str, destroy: &str, limit: Duration) {
    let before = rules(host, list);
    assert!(before.iter().any(|line| line.to_lowercase().contains("masquerade")), "{before:#?}");
    on(host, destroy);
    wait_until(format!("the rules after `{destroy}`"), limit, || match rules(host, list) {
        now if now == before => Ok(()),
        now => Err(format!("{now:#?}, and before {before:#?}")),
    })
    .unwrap();
}

/// Damage that users and tools do to iptables rules; `TOOL` stands for the program.
const DAMAGE: [&str; 7] = [
    "TOOL -F; TOOL -t nat -F",
    "TOOL -F FLANNEL-FWD; TOOL -t nat -F FLANNEL-POSTRTG",
    "TOOL -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
    // In one step: a repair in between would keep the chain from being deleted.
    "printf '%s\\n' '*nat' '-F POSTROUTING' '-F FLANNEL-POSTRTG' '-X FLANNEL-POSTRTG' COMMIT | TOOL-restore -n",
    "TOOL -t nat -D FLANNEL-POSTRTG 2",
    "TOOL -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
    "TOOL -t nat -I FLANNEL-POSTRTG 1 -s 10.244.0.0/16 -j MASQUERADE",
];

#[test]
fn iptables_nft_rules_are_restored_at_once() {
    let cluster = Cluster::with_config(Families::V4, Some(&config(false)));
    let host = cluster.host("a");
    let _daemon = start(&cluster, &host, Flavour::Nft, &["--ip-masq", NO_RESYNC]);
    for damage in DAMAGE.into_iter().chain(["nft flush ruleset"]) {
        let damage = damage.replace("TOOL", "iptables-nft");
        come_back(&host, "iptables-nft-save", &damage, AT_ONCE);
    }
    let events = &status(&host)["events"];
    let told = |event: &Value| {
        let text = event["text"].as_str().unwrap();
        event["kind"] == "drift" && text.contains("was missing; repaired")
    };
    assert!(events.as_array().unwrap().iter().any(told), "{events:#}");
}

#[test]
fn iptables_legacy_rules_are_restored_by_resync() {
    let cluster = Cluster::with_config(Families::V4, Some(&config(false)));
    let host = cluster.host("a");
    let _daemon = start(&cluster, &host, Flavour::Legacy, &["--ip-masq", RESYNC]);
    for damage in DAMAGE {
        let damage = damage.replace("TOOL", "iptables-legacy");
        come_back(&host, "iptables-legacy-save", &damage, AT_ONCE + Duration::from_secs(1));
    }
}

#[test]
fn nftables_rules_are_restored_at_once() {
    let cluster = Cluster::with_config(Families::V4, Some(&config(true)));
    let host = cluster.host("a");
    let _daemon = start(&cluster, &host, Flavour::Nft, &["--ip-masq", NO_RESYNC]);
    for damage in
        ["nft flush ruleset", "nft delete table ip flannel-ipv4", "nft flush table ip flannel-ipv4"]
    {
        come_back(&host, "nft list ruleset", damage, AT_ONCE);
    }
}

#[test]
fn changed_rules_mode_replaces_former_rules() {
    let cluster = Cluster::with_config(Families::V4, Some(&config(false)));
    let mut node = cluster.starting_node("a", &["--ip-masq"]);
    node.daemon().wait_ready().unwrap();
    for nftables in [true, false] {
        node.stop(Signal::TERM);
        cluster.store().put_config(&config(nftables)).unwrap();
        cluster.restart(&mut node);
        let (tables, chains) =
            (on(&node.host, "nft list ruleset"), on(&node.host, "iptables-nft-save"));
        assert_eq!(tables.contains("table ip flannel-ipv4"), nftables, "{tables}");
        assert_eq!(chains.contains("FLANNEL-POSTRTG"), !nftables, "{chains}");
        assert_eq!(chains.contains("FLANNEL-FWD"), !nftables, "{chains}");
    }
    node.stop(Signal::TERM);
    cluster.restart(&mut node);
    let before = rules(&node.host, "iptables-nft-save");
    assert!(before.iter().any(|line| line.contains("MASQUERADE")), "{before:#?}");
}

#[test]
fn two_daemons_on_one_host_keep_each_others_rules() {
    let cluster = Cluster::with_config(Families::V4, Some(&config(false)));
    let other = r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan","VNI":99}}"#;
    cluster.etcd().put("/other/config", other).unwrap();
    let mut first = cluster.starting_node("a", &["--ip-masq", RESYNC]);
    first.daemon().wait_ready().unwrap();
    let alone = rules(&first.host, "iptables-nft-save");
    let mut command = cluster.heddled(&first.host);
    command.args(["--etcd-prefix=/other", "--healthz-port=0", "--ip-masq", RESYNC]);
    for (flag, file) in [("--subnet-file", "other.env"), ("--control-socket", "other.sock")] {
        command.arg(format!("{flag}={}", first.host.directory().join(file).display()));
    }
    let mut second = first.host.start(command).unwrap();
    second.wait_ready().unwrap();
    let both = rules(&first.host, "iptables-nft-save");
    for line in &alone {
        assert!(both.contains(line), "{line} is not in {both:#?}");
    }
    let others = both.iter().filter(|line| line.contains("10.99.0.0/16")).count();
    assert_eq!(
        others,
        alone.iter().filter(|line| line.contains("10.244.0.0/16")).count(),
        "{both:#?}"
    );
    // Several resyncs of both daemons later.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(rules(&first.host, "iptables-nft-save"), both);
    for log in [first.daemon().log(), second.log()] {
        // Each daemon has restored its two chains once, and nothing else.
        assert_eq!(log.matches("; repaired").count(), 2, "{log}");
    }
}

/// Sends a datagram from one namespace to another, and returns the source that the receiver sees.
fn source_seen(from: &Namespace, to: &Namespace, address: IpAddr) -> IpAddr {
    let receiver = to.udp_socket(SocketAddr::new(address, 0)).unwrap();
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = from.udp_socket(any.parse().unwrap()).unwrap();
    sender.send_to(b"who is it?", receiver.local_addr().unwrap()).unwrap();
    let limit = Duration::from_secs(5);
    let (source, _) = next_datagram(&receiver, limit).unwrap().expect("a datagram");
    source.ip()
}

/// Asserts, for each family, that packets that leave the overlay have the node's address as the
/// source, and packets inside it the container's.
fn masquerades(nftables: bool) {
    let overlay = Families::Dual.config();
    let config = overlay.replacen('{', &format!(r#"{{"EnableNFTables": {nftables}, "#), 1);
    let cluster = Cluster::with_config(Families::Dual, Some(&config));
    let [a, b] = ["a", "b"].map(|name| {
        let mut node = cluster.starting_node(name, &["--ip-masq"]);
        node.daemon().wait_ready().unwrap();
        node
    });
    let outside = cluster.host("outside");
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    for (family, outer) in outside.addresses().enumerate() {
        let (container, peer) = (in_a.addresses()[family], in_b.addresses()[family]);
        // Until a hop has resolved its neighbour, the kernel queues few packets and drops the rest.
        wait_until("a ping", Duration::from_secs(10), || in_a.ping(peer, 56)).unwrap();
        assert_eq!(source_seen(in_a.namespace(), in_b.namespace(), peer), container);
        let node = a.host.addresses().nth(family).unwrap();
        assert_eq!(source_seen(in_a.namespace(), outside.namespace(), outer), node);
        // A host that connects to another host's container uses its own address in the overlay.
        let seen = source_seen(a.host.namespace(), in_b.namespace(), peer);
        assert!(cluster.subnets(&a)[family].contains(&seen), "{seen}");
    }
}

#[test]
fn only_packets_leaving_overlay_are_masqueraded() {
    masquerades(false);
}

#[test]
fn only_packets_leaving_overlay_are_masqueraded_by_nftables() {
    masquerades(true);
}

#[test]
fn blackhole_route_drops_own_subnet_without_bridge() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.starting_node("a", &["--ip-blackhole-route"]);
    node.daemon().wait_ready().unwrap();
    let own = cluster.subnets(&node)[0];
    let route = node.ip(&format!("route show {own}"));
    assert_eq!(route.trim_end(), format!("blackhole {own} proto 72 metric 4096"));
    // The bridge's own route has precedence.
    let container = node.host.container().unwrap();
    ping(&container, &node.host.container().unwrap()).unwrap();
    node.ip(&format!("route delete blackhole {own} metric 4096"));
    let came_back = || match node.ip(&format!("route show {own}")) {
        found if found.contains("blackhole") => Ok(()),
        found => Err(found),
    };
    wait_until("the route", AT_ONCE, came_back).unwrap();
}
