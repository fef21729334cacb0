//! Follows `docs/guide.md` like a reader who types its commands: two machines with systemd, the
//! package, etcd with client certificates, Docker. Then tests further properties of such machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use heddle_lab::{Error, Families, Host, Lab, Machine, Namespace, wait_until};
use heddle_tests::guide::{Step, is_as_shown, steps};
use heddle_tests::{NEWER, SOON, image, newer_package, package};

/// `--iptables-resync` of 5 seconds, plus time for the restore.
const RESYNC: Duration = Duration::from_secs(8);

/// `WatchdogSec` of one minute, plus time for the start.
const WATCHDOG: Duration = Duration::from_secs(90);

#[test]
fn guide_has_same_steps_in_both_languages() {
    let [english, chinese] = ["guide.md", "guide.zh.md"].map(guide);
    assert!(!english.is_empty());
    assert_eq!(english, chinese);
}

type Part = fn(&mut Site);

/// Parts of the test on the same two machines, in order. Booting machines for each part would take
/// too long.
const PARTS: [(&str, Part); 16] = [
    ("the guide ends with pings", the_guide),
    ("who receives a packet sees who sent it", sources),
    ("a daemon hangs", hang),
    ("a restart loses no packet", restart),
    ("an upgrade loses no packet", upgrade),
    ("FORWARD's policy becomes DROP", forward_drop_after),
    ("FORWARD's policy is DROP at the start", forward_drop_before),
    ("iptables -F", flush_filter),
    ("iptables -t nat -F", flush_nat),
    ("nft flush ruleset", flush_ruleset),
    ("the daemon that hangs is started again", watchdog),
    ("certificates of another authority, and more in the log", reload),
    ("Docker's options in subnet.env", options_in_subnet_env),
    ("a reboot, into iptables-legacy", reboot),
    ("nftables in place of iptables", nftables),
    ("a machine is taken out", taking_out),
];

/// Number of sections with steps after the guide itself: Docker's options in subnet.env, and taking
/// a machine out.
const SECTIONS_AFTER: usize = 2;

#[test]
fn guide_works_as_written() {
    let mut site = Site::boot();
    for (name, part) in PARTS {
        eprintln!("--- {name}");
        let start = Instant::now();
        part(&mut site);
        eprintln!("--- {name}: {:.1?}", start.elapsed());
    }
}

fn the_guide(site: &mut Site) {
    site.follow(|step, last| step.section <= last - SECTIONS_AFTER);
    for machine in [1, 2] {
        let links = site.container(machine).ip("link show eth0").unwrap();
        assert!(links.contains(" mtu 1450 "), "{links}");
    }
}

fn sources(site: &mut Site) {
    let outside = site.outside.v4().into();
    for (from, to) in [(1, 2), (2, 1)] {
        let container = site.container(from);
        let seen = source(&container, &site.container(to), site.address(to));
        assert_eq!(seen, site.address(from));
        let seen = source(&container, site.outside.namespace(), outside);
        assert_eq!(seen, IpAddr::from(site.machine(from).host().v4()));
    }
}

/// [`watchdog`] checks the effect a minute later.
fn hang(site: &mut Site) {
    site.node2.shell("systemctl kill --kill-whom=main --signal=SIGSTOP heddled").unwrap();
    site.stopped = Some(Instant::now());
}

fn restart(site: &mut Site) {
    site.disturbs_nobody("systemctl restart heddled");
}

fn upgrade(site: &mut Site) {
    let upgrade = newer_package(site.lab.directory());
    site.node1.install(&upgrade, "/root/upgrade.deb").unwrap();
    site.disturbs_nobody("apt-get install -y ./upgrade.deb");
    let version = site.node1.shell("dpkg-query -W heddle").unwrap();
    assert!(version.trim_end().ends_with(NEWER), "{version}");
}

fn forward_drop_after(site: &mut Site) {
    site.node1.shell("iptables -P FORWARD DROP").unwrap();
    site.pings_within(Duration::ZERO);
}

fn forward_drop_before(site: &mut Site) {
    site.node1
        .shell(
            "systemctl stop heddled
             iptables -F FORWARD
             iptables -F FLANNEL-FWD
             iptables -X FLANNEL-FWD",
        )
        .unwrap();
    assert!(site.ping().is_err());
    site.node1.shell("systemctl start heddled").unwrap();
    site.pings_within(Duration::ZERO);
}

fn flush_filter(site: &mut Site) {
    site.node1.shell("iptables -F").unwrap();
    site.rules_are_back();
}

fn flush_nat(site: &mut Site) {
    site.node1.shell("iptables -t nat -F").unwrap();
    site.rules_are_back();
}

fn flush_ruleset(site: &mut Site) {
    site.node1.shell("nft flush ruleset; iptables -P FORWARD DROP").unwrap();
    site.rules_are_back();
}

fn watchdog(site: &mut Site) {
    let passed = site.stopped.unwrap().elapsed();
    wait_until("a restart", WATCHDOG.saturating_sub(passed), || {
        let show = "systemctl show --property=NRestarts,ActiveState heddled";
        let state = site.node2.shell(show).unwrap();
        if state == "NRestarts=1\nActiveState=active\n" { Ok(()) } else { Err(state) }
    })
    .unwrap();
    let journal = site.node2.shell("journalctl --unit=heddled").unwrap();
    assert!(journal.contains("watchdog"), "{journal}");
    site.pings_within(Duration::ZERO);
}

/// etcd switches to another certificate authority, and accepts only new certificates.
fn reload(site: &mut Site) {
    const DEBUG: &str = "journalctl --quiet --unit=heddled --priority=debug..debug";
    let nodes = |site: &Site, script| [1, 2].map(|node| site.machine(node).shell(script).unwrap());
    assert_eq!(nodes(site, DEBUG), ["", ""]);
    let etcd = site.steps.iter().find(|step| step.script.contains("etcd_ca.key")).unwrap().section;
    site.follow(|step, _| step.section == etcd);
    nodes(site, "echo FLANNELD_V=5 >> /etc/default/heddled; systemctl reload heddled");
    // A node that is connected to etcd programs a lease that is written now.
    let value = r#"{"PublicIP":"192.168.0.73","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:73"}}"#;
    let key = "/coreos.com/network/subnets/10.244.255.0-24";
    site.node1.shell(&format!("etcdctl put {key} '{value}'")).unwrap();
    wait_until("a route to the new peer", SOON, || {
        let routes = nodes(site, "ip route show 10.244.255.0/24");
        if routes.iter().any(String::is_empty) { Err(format!("{routes:?}")) } else { Ok(()) }
    })
    .unwrap();
    site.node1.shell(&format!("etcdctl del {key}")).unwrap();
    assert!(nodes(site, DEBUG).iter().all(|journal| !journal.is_empty()));
}

fn options_in_subnet_env(site: &mut Site) {
    let options = |file| format!("grep DOCKER_NETWORK_OPTIONS /run/flannel/{file}");
    let before = site.node2.shell(&options("docker.env")).unwrap();
    site.follow(|step, last| step.section == last - 1);
    assert_eq!(site.node2.shell(&options("subnet.env")).unwrap(), before);
    site.pings_within(Duration::ZERO);
}

fn reboot(site: &mut Site) {
    site.node2
        .shell(
            "update-alternatives --set iptables /usr/sbin/iptables-legacy
             docker update --restart=always two",
        )
        .unwrap();
    let Site { lab, node2, .. } = site;
    node2.reboot(lab).unwrap();
    let rules = site.node2.shell("iptables-legacy -S FLANNEL-FWD; iptables-nft -S").unwrap();
    assert_eq!(rules.matches("-j ACCEPT").count(), 2, "{rules}");
    site.node2.shell("iptables -P FORWARD DROP").unwrap();
    site.pings_within(SOON);
    // The daemon gets no event for this.
    site.node2.shell("iptables -F").unwrap();
    site.pings_within(RESYNC);
    site.node2.shell("systemctl stop heddled; iptables -F").unwrap();
    assert!(site.ping().is_err());
    site.node2.shell("systemctl start heddled").unwrap();
    site.pings_within(Duration::ZERO);
}

/// With `EnableNFTables`, while Docker continues to use iptables: one variant of it on node1, the
/// other on node2.
fn nftables(site: &mut Site) {
    let config = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
    site.node1.shell(&format!("etcdctl put /coreos.com/network/config '{config}'")).unwrap();
    for machine in [&site.node1, &site.node2] {
        machine.shell("systemctl restart heddled; nft list table ip flannel-ipv4").unwrap();
        assert!(machine.shell("iptables -t nat -S FLANNEL-POSTRTG").is_err());
        assert!(machine.shell("iptables -S FORWARD").unwrap().contains("-P FORWARD DROP"));
    }
    site.pings_within(Duration::ZERO);
    sources(site);
    site.node1.shell("nft flush ruleset; iptables -P FORWARD DROP").unwrap();
    site.pings_within(RESYNC);
    wait_until("masquerading", RESYNC, || {
        site.node1.shell("nft list table ip flannel-ipv4 | grep masquerade")
    })
    .unwrap();
}

/// Docker does as the guide says, and the subnet is free: nothing on the machine has it.
fn taking_out(site: &mut Site) {
    let dropped = "rm /etc/systemd/system/docker.service.d/heddle.conf";
    let steps = site.steps.clone();
    let last = steps.last().unwrap().section;
    let of_part = |step: &&Step| step.section == last;
    let leaving = steps.iter().filter(of_part).position(|step| step.script.contains(dropped));
    let leaving = leaving.expect("a step that removes the drop-in");
    let mut number = 0;
    site.follow(|step, last| {
        number += usize::from(step.section == last);
        step.section == last && number <= leaving + 1
    });
    // As operation.md says, Docker takes the subnet again, even if the bridge is deleted.
    let bridge = "ip -brief -4 address show docker0";
    let before = site.node2.shell(bridge).unwrap();
    site.node2.shell("systemctl stop docker docker.socket; ip link delete docker0").unwrap();
    site.node2.shell("systemctl start docker").unwrap();
    let again = site.node2.shell(bridge).unwrap();
    let address = |printed: &str| printed.split_whitespace().nth(2).map(str::to_owned);
    assert_eq!(address(&again), address(&before));
    let mut number = 0;
    site.follow(|step, last| {
        number += usize::from(step.section == last);
        step.section == last && number > leaving + 1
    });
    let subnet = site.values["LEASE"].replace('-', "/");
    let found = site.node2.shell(&format!("ip -4 address show to {subnet} dev docker0")).unwrap();
    assert_eq!(found, "");
    // Nobody starts heddled again, also not Docker at the boot.
    let Site { lab, node2, .. } = site;
    node2.reboot(lab).unwrap();
    let active = "systemctl start docker; systemctl is-active heddled || true";
    assert_eq!(site.node2.shell(active).unwrap(), "inactive\n");
    assert!(site.node2.shell(bridge).unwrap().contains("172.17.0.1/16"));
}

/// Two machines, a host outside of the overlay, and the values that the guide's reader has noted.
struct Site {
    node1: Machine,
    node2: Machine,
    outside: Host,
    steps: Vec<Step>,
    values: BTreeMap<String, String>,
    /// Time since which node2's daemon hangs.
    stopped: Option<Instant>,
    /// Dropped last, because the others are connected to it.
    lab: Lab,
}

impl Site {
    /// Boots the machines in the state that the guide expects, with the package in place.
    fn boot() -> Self {
        let (image, package) = (image(), package());
        let lab = Lab::new(Families::V4).unwrap();
        let boot = |name, number| {
            let host = lab.numbered_host(name, number).unwrap();
            let machine = Machine::boot(host, &image).unwrap();
            let file = Path::new("/root").join(package.file_name().unwrap());
            machine.install(&package, file.to_str().unwrap()).unwrap();
            machine
        };
        Self {
            node1: boot("node1", 71),
            node2: boot("node2", 72),
            outside: lab.host("outside").unwrap(),
            steps: guide("guide.md"),
            values: BTreeMap::new(),
            stopped: None,
            lab,
        }
    }

    /// Runs the selected steps of the guide, and compares their output. `wanted` gets the step and
    /// the number of the last section.
    fn follow(&mut self, mut wanted: impl FnMut(&Step, usize) -> bool) {
        let last = self.steps.last().unwrap().section;
        for step in self.steps.clone().iter().filter(|step| wanted(step, last)) {
            let mut script = step.script.clone();
            for (name, value) in &self.values {
                script = script.replace(name, value);
            }
            let machines = match step.machine.as_str() {
                "node1" => &[1][..],
                "node2" => &[2],
                "all" => &[1, 2],
                other => panic!("the guide has a block for {other}"),
            };
            for &node in machines {
                let printed = self.machine(node).type_in(&script);
                if let Some(shown) = &step.output {
                    assert!(is_as_shown(shown, &printed), "the guide shows:\n{shown}");
                }
                if let Some(name) = &step.name {
                    self.values.insert(name.clone(), printed.trim().to_owned());
                }
            }
        }
    }

    fn machine(&self, node: usize) -> &Machine {
        [&self.node1, &self.node2][node - 1]
    }

    /// Returns the network namespace of the guide's container on a machine.
    fn container(&self, node: usize) -> Namespace {
        self.machine(node).docker_container(["one", "two"][node - 1]).unwrap()
    }

    /// Returns the container's address, as noted by the guide's reader.
    fn address(&self, node: usize) -> IpAddr {
        self.values[&format!("CONTAINER{node}")].parse().unwrap()
    }

    /// Sends one ping from each container to the other.
    fn ping(&self) -> Result<(), Error> {
        for (from, to) in [(1, 2), (2, 1)] {
            let mut ping = Command::new("ping");
            ping.args(["-n", "-c", "1", "-W", "1", &self.address(to).to_string()]);
            self.container(from).run(ping)?;
        }
        Ok(())
    }

    fn pings_within(&self, limit: Duration) {
        wait_until("pings between containers", limit, || self.ping()).unwrap();
    }

    /// Waits until node1's rules are restored after a deletion, while the policy of FORWARD is
    /// DROP.
    fn rules_are_back(&self) {
        self.pings_within(RESYNC);
        wait_until("masquerading", RESYNC, || {
            self.node1.shell(
                "iptables -t nat -S POSTROUTING | grep FLANNEL-POSTRTG
                 iptables -t nat -S FLANNEL-POSTRTG | grep MASQUERADE
                 iptables -S FORWARD | grep 'P FORWARD DROP'",
            )
        })
        .unwrap();
    }

    /// Runs a script that affects node1's daemon during pings in both directions, one per 10 ms.
    /// Asserts that none is lost, and that Docker keeps running.
    fn disturbs_nobody(&self, script: &str) {
        let show = |properties, unit| {
            self.node1.shell(&format!("systemctl show --property={properties} {unit}")).unwrap()
        };
        let docker = || show("MainPID,ActiveEnterTimestampMonotonic", "docker");
        let before = (docker(), show("MainPID", "heddled"));
        let pings = [(1, 2), (2, 1)]
            .map(|(from, to)| self.container(from).ping_stream(self.address(to)).unwrap());
        pings.iter().for_each(|pings| pings.wait_answers(20).unwrap());
        self.node1.type_in(script);
        pings.iter().for_each(|pings| pings.wait_answers(100).unwrap());
        for pings in pings {
            let pings = pings.finish().unwrap();
            assert!(pings.lost.is_empty(), "{pings:?}");
        }
        assert_eq!(docker(), before.0);
        assert_ne!(show("MainPID", "heddled"), before.1);
    }
}

/// A user who types at a machine.
trait Typing {
    /// Runs the script, and prints it and its output, which show if the test fails.
    fn type_in(&self, script: &str) -> String;
}

impl Typing for Machine {
    fn type_in(&self, script: &str) -> String {
        if script.contains("docker run ") {
            provide_busybox(self);
        }
        let start = Instant::now();
        let printed = self.shell(script).unwrap();
        eprintln!("{}# {script}\n{printed}({:.1?})", self.host().name(), start.elapsed());
        printed
    }
}

fn guide(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    steps(&std::fs::read_to_string(path).unwrap())
}

/// Connects to an address, and returns the source address that the receiver sees.
fn source(from: &Namespace, to: &Namespace, address: IpAddr) -> IpAddr {
    let listener = to.enter(|| TcpListener::bind(SocketAddr::new(address, 0))).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    let _stream = from.enter(|| TcpStream::connect_timeout(&target, SOON)).unwrap().unwrap();
    listener.accept().unwrap().1.ip()
}

/// Builds the image that Docker would pull from a registry. Its containers stop immediately instead
/// of after ten seconds.
fn provide_busybox(machine: &Machine) {
    machine
        .shell(
            "install -D -t image/bin /usr/bin/busybox
             for name in sh sleep ping; do ln -sf busybox image/bin/$name; done
             tar -C image -c . | docker import - files
             printf 'FROM files\\nSTOPSIGNAL KILL\\n' | docker build --tag busybox -",
        )
        .unwrap();
}
