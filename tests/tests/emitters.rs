//! Files for other programs: which of them are written, their content, and the effect of
//! `mk-docker-opts.sh` adding its own content to one of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_lab::{Error, Families, Host, Signal};
use heddle_tests::{Cluster, Node, Overlay, SOON, heddle};
use serde_json::{Value, json};

/// Runs the script on a host, like an `ExecStartPost=`.
fn mk_docker_opts(
    host: &Host,
    flags: &[&str],
    subnet_file: &Path,
    docker_file: &Path,
) -> Result<String, Error> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/mk-docker-opts.sh");
    let tool = heddle();
    let path = format!("{}:{}", tool.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(script);
    command.env("PATH", path).args(flags);
    command.arg("-f").arg(subnet_file).arg("-d").arg(docker_file);
    host.namespace().run(command)
}

/// Returns the path that a file will have on a host that does not exist yet.
fn file_on(cluster: &Cluster, host: &str, name: &str) -> PathBuf {
    cluster.lab().directory().join(host).join(name)
}

/// Returns the bridge's address: the subnet's first usable one, with the prefix length.
fn bridge(cluster: &Cluster, node: &Node) -> String {
    let subnet = cluster.subnet(node, Overlay::V4);
    format!("{}/{}", subnet.hosts().next().unwrap(), subnet.prefix_len())
}

#[test]
fn node_keeps_subnet_after_docker_opts_replace_subnet_env() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let (subnet, bridge) = (cluster.subnet(&node, Overlay::V4), bridge(&cluster, &node));
    let file = node.host.subnet_file();
    mk_docker_opts(&node.host, &["-k", "DOCKER_NETWORK_OPTIONS"], &file, &file).unwrap();
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!(
            "DOCKER_OPT_BIP=\"--bip={bridge}\"\n\
             DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
             DOCKER_OPT_MTU=\"--mtu=1450\"\n\
             DOCKER_NETWORK_OPTIONS=\" --bip={bridge} --ip-masq=true --mtu=1450\"\n"
        )
    );

    node.stop(Signal::TERM);
    cluster.restart(&mut node);
    assert_eq!(cluster.subnet(&node, Overlay::V4), subnet);
    assert_eq!(fs::read_to_string(&file).unwrap(), cluster.subnet_env(&node, 1450));
    assert_eq!(cluster.etcd().leases().unwrap().len(), 1);
}

#[test]
fn docker_opts_for_subnet_behind_router_fail() {
    let cluster = Cluster::with_config(Families::V4, None);
    let host = cluster.host("a");
    let (subnet_file, docker_file) = (host.directory().join("in"), host.directory().join("out"));
    fs::write(&subnet_file, "FLANNEL_SUBNET=10.244.8.1/24\n").unwrap();
    // A route for the whole overlay, or through a device of this host, is no conflict.
    host.namespace().ip("route add 10.244.0.0/16 via 192.168.255.254").unwrap();
    host.namespace().ip("route add 10.244.8.0/24 dev eth0").unwrap();
    mk_docker_opts(&host, &[], &subnet_file, &docker_file).unwrap();

    host.namespace().ip("route replace 10.244.8.0/24 via 192.168.255.254").unwrap();
    let error = mk_docker_opts(&host, &[], &subnet_file, &docker_file).unwrap_err();
    let Error::Failed { status, stderr, .. } = error else { panic!("{error}") };
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        stderr,
        "Your routing table already contains the subnet: 10.244.8.0/24 via 192.168.255.254 dev eth0"
    );
}

#[test]
fn emit_flags_select_the_written_files() {
    let cluster = Cluster::new(Families::V4);
    let docker_file = file_on(&cluster, "a", "docker.env");
    let cni_file = file_on(&cluster, "a", "cni/net.d/10-heddle.conflist");
    let docker_opts = format!(
        "--emit=docker-opts:path={},key=DOCKER_NETWORK_OPTIONS,combined=true",
        docker_file.display()
    );
    let cni_conf = format!("--emit=cni-conf:path={},name=blue,bridge=cni7", cni_file.display());
    let flags = ["--emit", "subnet-env", &docker_opts, &cni_conf, "--ip-masq"];
    let mut node = cluster.starting_node("a", &flags);
    node.daemon().wait_ready().unwrap();

    let subnet_env = cluster.subnet_env(&node, 1450).replace("IPMASQ=false", "IPMASQ=true");
    assert_eq!(fs::read_to_string(node.host.subnet_file()).unwrap(), subnet_env);
    let bridge = bridge(&cluster, &node);
    assert_eq!(
        fs::read_to_string(&docker_file).unwrap(),
        format!("DOCKER_NETWORK_OPTIONS=\" --bip={bridge} --ip-masq=false --mtu=1450\"\n")
    );
    let network: Value = serde_json::from_str(&fs::read_to_string(&cni_file).unwrap()).unwrap();
    let subnet = cluster.subnet(&node, Overlay::V4);
    assert_eq!((&network["name"], &network["cniVersion"]), (&json!("blue"), &json!("0.4.0")));
    assert_eq!(
        network["plugins"][0],
        json!({
            "type": "bridge",
            "bridge": "cni7",
            "isGateway": true,
            "isDefaultGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "mtu": 1450,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": subnet.to_string() }]] },
        })
    );
    for file in [docker_file, cni_file] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o644);
    }
}

#[test]
fn shared_file_has_docker_opts_and_previous_subnet() {
    let cluster = Cluster::new(Families::V4);
    let file = file_on(&cluster, "a", "run/flannel/subnet.env");
    let emit =
        format!("--emit=docker-opts:path={},subnet-env=true,individual=true", file.display());
    let mut node = cluster.starting_node("a", &[&emit]);
    node.daemon().wait_ready().unwrap();
    assert_eq!(file, node.host.subnet_file());
    let bridge = bridge(&cluster, &node);
    let options = format!(
        "DOCKER_OPT_BIP=\"--bip={bridge}\"\n\
         DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
         DOCKER_OPT_MTU=\"--mtu=1450\"\n"
    );
    let expected = cluster.subnet_env(&node, 1450) + &options;
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);

    // Now only the file records the subnet.
    node.stop(Signal::TERM);
    let lease = cluster.lease(&node);
    cluster.delete_lease(lease.key.rsplit_once('/').unwrap().1);
    cluster.restart(&mut node);
    assert_eq!(cluster.lease(&node).key, lease.key);
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
}

#[test]
fn two_emitters_with_one_file_are_refused() {
    let cluster = Cluster::new(Families::V4);
    let file = file_on(&cluster, "a", "run/flannel/subnet.env");
    let emit = format!("--emit=docker-opts:path={}", file.display());
    let mut node = cluster.starting_node("a", &["--emit=subnet-env", &emit]);
    let conflict = format!("subnet-env and docker-opts both write {}", file.display());
    node.daemon().wait_log(&["--emit", &conflict, "expected a separate file"], SOON).unwrap();
    // The first emitter keeps the file.
    assert_eq!(fs::read_to_string(&file).unwrap(), cluster.subnet_env(&node, 1450));
}

#[test]
fn emitter_error_is_reported() {
    let cluster = Cluster::new(Families::V4);
    for (name, emit, expected) in [
        ("a", "nope", &["there is no plugin `nope`", "subnet-env"][..]),
        ("b", "vxlan", &["vxlan", "emitter"]),
        (
            "c",
            "docker-opts:kei=X",
            &["plugin docker-opts", "setting `kei` is unknown: expected `path`, `key`"],
        ),
        ("d", "cni-conf:path=cni.conflist", &["plugin cni-conf", "expected an absolute path"]),
        ("e", "docker-opts:ip-masq=no", &["setting `ip-masq` is \"no\": expected true or false"]),
    ] {
        let emit = format!("--emit={emit}");
        let mut node = cluster.starting_node(name, &[&emit]);
        node.daemon().wait_log(expected, SOON).unwrap();
        assert!(!node.host.subnet_file().exists(), "{name}");
    }
}
