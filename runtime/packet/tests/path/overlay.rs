//! Hosts with a path each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_lab::{Families, Host, Lab, Namespace, next_datagram, wait_until};
use heddle_packet::{
    Counters, Destinations, Forwarding, OpenError, Path, Peer, Running, Settings, Table,
    TableSteering,
};
use ipnet::IpNet;

pub(crate) const PORT: u16 = 8285;
pub(crate) const DEVICE: &str = "flannel0";
/// The MTU for an underlay of Ethernet with an IPv6 header and UDP, in bytes.
pub(crate) const MTU: u32 = 1452;

/// Time limit for anything here, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Options for three pings at once that leave a busy machine time to answer: after the first
/// answer, ping waits one interval for the others, regardless of `-W`.
pub(crate) const PINGS: &str = "-c 3 -l 3 -i 3 -W 3";

/// Returns the subnets of a node, by its number.
pub(crate) fn subnets(number: u8) -> Vec<IpNet> {
    vec![
        format!("10.244.{number}.0/24").parse().unwrap(),
        format!("fd00:10:244:{number}::/64").parse().unwrap(),
    ]
}

/// Returns the IPv4 address of a node's device.
pub(crate) fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 244, number, 0).into()
}

pub(crate) fn v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 0x99).into()
}

/// Builds a table of the nodes with these numbers and hosts.
pub(crate) fn table(nodes: &[(u8, &Host)]) -> Arc<Table> {
    let peer = |&(number, host): &(u8, &Host)| Peer {
        endpoints: host.addresses().collect(),
        subnets: subnets(number),
    };
    Arc::new(Table::new(nodes.iter().map(peer).collect()))
}

/// Returns a forwarding steered by the table, without a plugin.
pub(crate) fn native(table: Arc<Table>) -> Forwarding {
    let steering = Box::new(TableSteering(Arc::clone(&table)));
    Forwarding { table, steering: Some(steering), transform: None }
}

/// A host with a path.
pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) running: Running,
    /// The failures reported so far.
    pub(crate) failures: Arc<Mutex<Vec<String>>>,
    pub(crate) host: Host,
}

pub(crate) fn settings(number: u8, host: &Host) -> Settings {
    Settings {
        device: DEVICE.parse().unwrap(),
        mtu: MTU,
        addresses: vec![v4(number), v6(number)],
        sockets: host.addresses().map(|address| SocketAddr::new(address, PORT)).collect(),
        port: PORT,
        destinations: Destinations::new(subnets(number), &[]),
    }
}

pub(crate) fn open(number: u8, host: &Host) -> Result<Path, OpenError> {
    host.namespace().enter(|| Path::open(settings(number, host))).unwrap()
}

impl Node {
    /// Starts a path without a forwarding, and configures its device like the daemon does.
    pub(crate) fn start(number: u8, host: Host) -> Self {
        Self::start_with(number, host, Path::open)
    }

    pub(crate) fn start_with(
        number: u8,
        host: Host,
        open: impl FnOnce(Settings) -> Result<Path, OpenError> + Send,
    ) -> Self {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&failures);
        let start = || {
            let path = open(settings(number, &host)).unwrap();
            path.start(move |failure| seen.lock().unwrap().push(failure.reason)).unwrap()
        };
        let running = host.namespace().enter(start).unwrap();
        let node = Self { number, running, failures, host };
        node.configure();
        node
    }

    pub(crate) fn configure(&self) {
        let (v4, v6) = (v4(self.number), v6(self.number));
        self.ip(&format!("link set {DEVICE} up"));
        self.ip(&format!("addr add {v4}/32 dev {DEVICE}"));
        self.ip(&format!("addr add {v6}/128 dev {DEVICE} nodad"));
        self.ip(&format!("route add 10.244.0.0/16 dev {DEVICE} src {v4}"));
        self.ip(&format!("route add fd00:10:244::/48 dev {DEVICE} src {v6}"));
        // A worker of the kernel makes the address usable, even without duplicate address
        // detection.
        wait_until("an address of IPv6 in use", SOON, || {
            let route = self.ip(&format!("route get {v6}"));
            if route.starts_with("local") { Ok(()) } else { Err(route) }
        })
        .unwrap();
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.host.namespace().ip(arguments).unwrap()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.host.namespace()
    }

    /// Returns the output of ping, whether or not there are answers.
    pub(crate) fn ping(&self, arguments: &str) -> String {
        let arguments = format!("ping -n {arguments} 2>&1; true");
        let mut command = Command::new("sh");
        command.args(["-c", &arguments]);
        self.namespace().run(command).unwrap()
    }

    /// Waits until the counters meet a condition.
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn(&Counters) -> bool) -> Counters {
        wait_until(what, SOON, || {
            let counters = self.running.counters();
            if holds(&counters) { Ok(counters) } else { Err(format!("{counters:?}")) }
        })
        .unwrap()
    }
}

/// Nodes 1 and 2, which know each other.
pub(crate) struct Pair {
    pub(crate) one: Node,
    pub(crate) two: Node,
    _lab: Lab,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let lab = Lab::new(Families::Dual).unwrap();
        let one = Node::start(1, lab.host("one").unwrap());
        let two = Node::start(2, lab.host("two").unwrap());
        Self::of(lab, one, two)
    }

    /// Creates a pair in which node 1 uses all offloads and node 2 none.
    pub(crate) fn uneven() -> Self {
        let lab = Lab::new(Families::Dual).unwrap();
        let one = Node::start(1, lab.host("one").unwrap());
        let two = Node::start_with(2, lab.host("two").unwrap(), Path::open_without_offload);
        Self::of(lab, one, two)
    }

    fn of(lab: Lab, one: Node, two: Node) -> Self {
        one.running.set(native(table(&[(2, &two.host)])));
        two.running.set(native(table(&[(1, &one.host)])));
        Self { one, two, _lab: lab }
    }
}

/// Node 1, and a host that acts as node 2 with a plain socket, without a path.
pub(crate) struct Plain {
    pub(crate) node: Node,
    pub(crate) socket: UdpSocket,
    pub(crate) other: Host,
    _lab: Lab,
}

impl Plain {
    pub(crate) fn new() -> Self {
        let lab = Lab::new(Families::Dual).unwrap();
        let node = Node::start(1, lab.host("one").unwrap());
        let other = lab.host("two").unwrap();
        node.running.set(native(table(&[(2, &other)])));
        let socket = other.namespace().udp_socket((other.v4(), PORT).into()).unwrap();
        Self { node, socket, other, _lab: lab }
    }

    /// Sends a datagram to the node.
    pub(crate) fn send(&self, payload: &[u8]) {
        let to = SocketAddr::new(self.node.host.v4().into(), PORT);
        assert_eq!(self.socket.send_to(payload, to).unwrap(), payload.len());
    }

    /// Receives datagrams until `what` accepts one.
    pub(crate) fn receive<T>(&self, what: impl Fn(&[u8]) -> Option<T>) -> T {
        loop {
            let (from, datagram) = next_datagram(&self.socket, SOON).unwrap().expect("a datagram");
            assert_eq!(from, SocketAddr::new(self.node.host.v4().into(), PORT));
            if let Some(found) = what(&datagram) {
                return found;
            }
        }
    }
}
