//! Two containers on two hosts, and the program that carries packets between them.

use std::fs;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heddle_lab::{Container, Daemon, Families, Host, Lab, Namespace, Store, wait_until};
use heddle_tests::{carry, heddled};

use crate::load::Load;
use crate::machine;
use crate::results::Sample;
use crate::variant::Variant;

/// Two containers on two hosts in a lab of their own. An idle pair uses no CPU.
pub(crate) struct Pair {
    pub(crate) variant: Variant,
    /// The receiver's address.
    to: IpAddr,
    // Fields are dropped in this order.
    _server: Process,
    containers: [Container; 2],
    _carriers: Carriers,
    _hosts: [Host; 2],
    _lab: Lab,
}

/// Processes that carry the packets.
#[derive(Default)]
struct Carriers {
    _daemons: Vec<Daemon>,
    _programs: Vec<Process>,
}

impl Pair {
    /// Sets up the hosts and containers, and waits until packets get through.
    pub(crate) fn new(variant: Variant) -> Self {
        let lab = Lab::new(Families::V4).unwrap();
        let hosts = ["a", "b"].map(|name| lab.host(name).unwrap());
        let carriers = match variant {
            Variant::Bare => daemons(&lab, &hosts, "host-gw"),
            Variant::Vxlan | Variant::Udp | Variant::VxlanTun => {
                daemons(&lab, &hosts, variant.name())
            }
            Variant::Native => programs(&hosts, ""),
            Variant::Naive => programs(&hosts, "--one-packet-per-syscall"),
        };
        let containers = hosts.each_ref().map(|host| host.container().unwrap());
        let [from, receiver] = &containers;
        let to = receiver.addresses()[0];
        let server = Process::start(receiver.namespace(), command("iperf3 -s"));
        wait_until(format!("iperf3's server of {}", variant.name()), LIMIT, || {
            let listeners = receiver.namespace().run(command("ss -Hltn")).unwrap();
            if listeners.contains(":5201") { Ok(()) } else { Err(listeners) }
        })
        .unwrap();
        wait_until(format!("a packet through {}", variant.name()), LIMIT, || {
            from.namespace().run(command(&format!("ping -n -c 1 -W 1 {to}")))
        })
        .unwrap();
        Self {
            variant,
            to,
            _server: server,
            containers,
            _carriers: carriers,
            _hosts: hosts,
            _lab: lab,
        }
    }

    /// Runs the load for `duration`.
    pub(crate) fn measure(&self, load: Load, duration: Duration) -> Sample {
        let [from, _] = &self.containers;
        let seconds = duration.as_secs();
        // `timeout` turns a hang into an error.
        let iperf = command(&format!(
            "timeout {} iperf3 -J -c {} -t {seconds} {}",
            seconds + LIMIT.as_secs(),
            self.to,
            load.arguments()
        ));
        let (busy, printed) = machine::busy_during(|| from.namespace().run(iperf).unwrap());
        let report = serde_json::from_str(&printed).unwrap();
        let received = load.received(&report);
        let received = received
            .unwrap_or_else(|| panic!("{}, {}: {printed}", self.variant.name(), load.name()));
        Sample { received, cpu: busy.as_secs_f64() }
    }
}

/// Starts a daemon with this backend on each host.
fn daemons(lab: &Lab, hosts: &[Host; 2], backend: &str) -> Carriers {
    let store = Store::directory(lab.directory().join("store")).unwrap();
    store.put_config(&Families::V4.config_with(backend)).unwrap();
    let start = |host: &Host| {
        let mut command = host.heddled(&heddled(), &store);
        // For a fair comparison: the hosts without daemons have no forward rules either.
        command.arg("--iptables-forward-rules=false");
        let mut daemon = host.start(command).unwrap();
        daemon.wait_ready().unwrap();
        daemon
    };
    Carriers { _daemons: hosts.iter().map(start).collect(), ..Carriers::default() }
}

/// Starts a packet loop without a daemon on each host, and sets the addresses and routes that a
/// daemon would have configured.
fn programs(hosts: &[Host; 2], flags: &str) -> Carriers {
    let subnets = ["10.244.1", "10.244.2"];
    let start = |here: usize, there: usize| {
        let mut carry = Command::new(carry());
        carry.args(["--device=flannel0".to_owned(), format!("--address={}.0/32", subnets[here])]);
        carry.arg(format!("--local={}:8285", hosts[here].v4()));
        carry.arg(format!("--peer={}.0/24={}", subnets[there], hosts[there].v4()));
        carry.args(flags.split_whitespace());
        let env = format!("FLANNEL_SUBNET={}.1/24\nFLANNEL_MTU=1472\n", subnets[here]);
        let file = hosts[here].subnet_file();
        fs::create_dir_all(file.parent().expect("it is in a directory")).unwrap();
        fs::write(file, env).unwrap();
        Process::start(hosts[here].namespace(), carry)
    };
    Carriers { _programs: vec![start(0, 1), start(1, 0)], ..Carriers::default() }
}

/// Time an operation may take beyond its own duration.
const LIMIT: Duration = Duration::from_secs(20);

/// Parses a command line without quotes.
fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// A process that is killed on drop.
struct Process(Child);

impl Process {
    fn start(namespace: &Namespace, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(namespace.spawn(command).unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited already, so errors are ignored.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
