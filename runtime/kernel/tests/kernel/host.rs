//! A test host: a network namespace with an underlay, and the plan of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::thread;

use heddle_core::address::{Family, LinkName};
use heddle_core::diff::{ObjectChange, Observed, Scope, diff};
use heddle_core::object::{
    Address, FdbEntry, Link, LinkKind, Metric, Neighbour, Object, ObjectKey, Route, RouteAction,
    Sysctl, Vxlan,
};
use heddle_kernel::{Failure, Kernel};
use heddle_requires::requires;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Runs a test in a new network namespace with `eth0` (192.168.0.72/24, 2001:db8::72/64; MTU 1500)
/// and a default route through 192.168.0.1.
pub(crate) fn on_a_host(test: impl AsyncFnOnce(Kernel) + Send + 'static) {
    requires!(Namespaces, Program("ip"), Program("bridge"));
    let host = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        ip("link set lo up");
        ip("link add eth0 type veth peer name wire");
        ip("link set wire up");
        ip("link set eth0 up");
        ip("address add 192.168.0.72/24 dev eth0");
        ip("address add 2001:db8::72/64 dev eth0 nodad");
        ip("route add default via 192.168.0.1 dev eth0");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Kernel::open().unwrap()).await });
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// Returns the output of `ip -j` or `bridge -j` as a list.
pub(crate) fn json(program: &str, arguments: &str) -> Vec<Value> {
    let text = run(program, &format!("-d -j {arguments}"));
    if text.trim().is_empty() { vec![] } else { serde_json::from_str(&text).unwrap() }
}

/// Returns the device as `ip -d -j link` shows it.
pub(crate) fn device(name: &str) -> Value {
    json("ip", &format!("link show {name}")).remove(0)
}

pub(crate) fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

pub(crate) fn scope() -> Scope {
    Scope {
        networks: vec!["10.244.0.0/16".parse().unwrap(), "fd42::/48".parse().unwrap()],
        granted: vec![],
        reserved: vec![],
        own: vec![],
        links: BTreeSet::from([name("flannel.1"), name("flannel-v6.1")]),
        alias: "heddle /coreos.com/network".into(),
    }
}

pub(crate) fn vxlan(device: &str, local: &str) -> Link {
    let local: std::net::IpAddr = local.parse().unwrap();
    Link {
        name: name(device),
        mtu: if local.is_ipv4() { 1450 } else { 1430 },
        mac: Some("02:42:0a:f4:08:00".parse().unwrap()),
        up: true,
        kind: LinkKind::Vxlan(Vxlan {
            vni: 1,
            local,
            underlay: name("eth0"),
            port: 8472,
            learning: false,
            gbp: false,
        }),
    }
}

/// The objects of flannel's vxlan backend on a node with subnet 10.244.8.0/24.
pub(crate) fn node_v4() -> Vec<Object> {
    let link = vxlan("flannel.1", "192.168.0.72");
    vec![
        Object::Address(Address { link: link.name, network: "10.244.8.0/32".parse().unwrap() }),
        accept_ra(link.name),
        Object::Link(link),
    ]
}

/// The same for fd42:0:0:8::/64.
pub(crate) fn node_v6() -> Vec<Object> {
    let link = vxlan("flannel-v6.1", "2001:db8::72");
    vec![
        Object::Address(Address { link: link.name, network: "fd42:0:0:8::/128".parse().unwrap() }),
        accept_ra(link.name),
        Object::Link(link),
    ]
}

pub(crate) fn accept_ra(link: LinkName) -> Object {
    let setting = Sysctl { link, family: Family::V6, name: "accept_ra".into(), value: "0".into() };
    Object::Sysctl(setting)
}

/// The objects for a peer: route, neighbour and FDB entry.
pub(crate) fn peer(device: &str, subnet: &str, mac: &str, public: &str) -> Vec<Object> {
    let (link, mac) = (name(device), mac.parse().unwrap());
    let destination: ipnet::IpNet = subnet.parse().unwrap();
    let gateway = destination.addr();
    vec![
        Object::Route(Route {
            metric: Metric::Default,
            destination,
            action: RouteAction::Forward { link, gateway: Some(gateway), onlink: true },
        }),
        Object::Neighbour(Neighbour { link, address: gateway, mac }),
        Object::FdbEntry(FdbEntry { link, mac, destination: public.parse().unwrap() }),
    ]
}

pub(crate) fn peer_v4() -> Vec<Object> {
    peer("flannel.1", "10.244.36.0/24", "3a:8b:71:f2:2e:de", "192.168.0.99")
}

pub(crate) fn peer_v6() -> Vec<Object> {
    peer("flannel-v6.1", "fd42:0:0:24::/64", "3a:8b:71:f2:2e:df", "2001:db8::99")
}

pub(crate) async fn observe(kernel: &Kernel, plan: &[Object]) -> Observed {
    let settings: Vec<Sysctl> = plan
        .iter()
        .filter_map(|object| match object {
            Object::Sysctl(setting) => Some(setting.clone()),
            _ => None,
        })
        .collect();
    kernel.observe(&scope(), &settings).await.unwrap()
}

/// Returns the changes needed to reach the plan.
pub(crate) async fn missing(kernel: &Kernel, plan: &[Object]) -> Vec<ObjectChange> {
    let desired: BTreeMap<ObjectKey, &Object> = plan.iter().map(|o| (o.key(), o)).collect();
    diff(&desired, &observe(kernel, plan).await)
}

/// Applies the plan, and returns the changes that failed.
pub(crate) async fn try_reconcile(kernel: &Kernel, plan: &[Object]) -> Vec<Failure> {
    kernel.apply(&scope(), missing(kernel, plan).await).await
}

/// Applies the plan, and asserts that nothing is left to do.
pub(crate) async fn reconcile(kernel: &Kernel, plan: &[Object]) {
    let failures = try_reconcile(kernel, plan).await;
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(missing(kernel, plan).await, []);
}
