use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use heddle_core::address::LinkName;
use heddle_core::object::{Address, Link, LinkKind, Plan};
use heddle_packet::Steer;

use crate::testing::{config, key, lease, lease_at, name, net, parsed, site};

use super::*;

#[test]
fn failed_plugin_start_keeps_peer_numbering() {
    let config = config();
    let known = [lease(1), lease(3), lease(5)];
    // Unchanged, readdressed, gone and new peers.
    let now = [lease(1), lease(2), lease_at(3, "192.0.2.33")];
    let now = now.map(|lease| (lease.key, lease)).into();
    let addresses = |others| {
        let peers = without_plugin(&config, &known, &now, others).into_iter();
        let address = |peer: Peer| peer.endpoints.first().map(ToString::to_string);
        peers.map(|peer| address(peer).unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(false), ["192.0.2.1", "", ""]);
    assert_eq!(addresses(true), ["192.0.2.1", "", "", "192.0.2.2", "192.0.2.33"]);
}

#[test]
fn disabled_family_is_left_out_of_peer() {
    let known = |config: &str| {
        let value = br#"{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1"}"#;
        // A cluster with IPv4 alone does not check the IPv6 part of a record.
        let lease = Lease::from_value("10.244.1.0-24&::-0".parse().unwrap(), value).unwrap();
        peer(&parsed(config), &lease)
    };
    let v4 = Peer { endpoints: vec![[192, 0, 2, 1].into()], subnets: vec![net("10.244.1.0/24")] };
    assert_eq!(known(r#"{"Network":"10.244.0.0/16"}"#), v4);
    let dual = known(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}"#);
    assert_eq!((dual.endpoints.len(), dual.subnets.len()), (2, 2));
}

fn tun(link: &str, mtu: u32) -> Object {
    Object::Link(Link { name: name(link), mtu, mac: None, up: true, kind: LinkKind::Tun })
}

fn address(link: &str, network: &str) -> Object {
    Object::Address(Address { link: name(link), network: net(network) })
}

fn tunnel(link: LinkName, local: &[IpAddr]) -> Tunnel {
    Tunnel { link, local: local.to_vec(), port: 8285, overhead: 0 }
}

#[test]
fn settings_follow_from_the_plan_of_the_tunnels_device() {
    let objects = vec![
        tun("other0", 900),
        address("other0", "10.0.0.1/32"),
        tun("flannel0", 1472),
        address("flannel0", "10.244.1.0/32"),
    ];
    let plan = NodePlan { plan: Plan { objects }, tunnel: None, mtu: 1400 };
    let local = [IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().unwrap()];
    let settings = settings(&plan, &tunnel(name("flannel0"), &local), Destinations::new([], &[]));
    assert_eq!((settings.device, settings.mtu, settings.port), (name("flannel0"), 1472, 8285));
    assert_eq!(settings.addresses, [IpAddr::from([10, 244, 1, 0])]);
    let sockets: Vec<_> = settings.sockets.iter().map(ToString::to_string).collect();
    assert_eq!(sockets, ["192.0.2.1:8285", "[2001:db8::1]:8285"]);
}

#[test]
fn mtu_is_the_containers_if_the_plan_has_no_device() {
    let plan = NodePlan { plan: Plan::default(), tunnel: None, mtu: 1400 };
    let settings = settings(&plan, &tunnel(name("flannel0"), &[]), Destinations::new([], &[]));
    assert_eq!(settings.mtu, 1400);
}

/// A plugin that sends packets to the peer with the subnet, and whose instances can be made to fail.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    transforms: bool,
    /// The number of instances that cannot be made from now on.
    failures: u32,
    /// The number of peers that each instance was given.
    made: Vec<usize>,
    /// True if an instance answers about a peer that there is not.
    wrong: bool,
    /// Everything that the path was given: the number of peers' subnets in the table, true if it came
    /// with an instance that steers, and the number of instances that transform inbound packets.
    given: Vec<(usize, bool, usize)>,
}

impl Scripted {
    fn with<T>(&self, look: impl FnOnce(&mut Script) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

struct Instance {
    peers: u32,
    wrong: bool,
}

impl Steer for Instance {
    fn steer(&mut self, asked: &[IpAddr], answers: &mut Vec<Option<u32>>) -> Result<(), String> {
        let last = if self.wrong { self.peers } else { self.peers.saturating_sub(1) };
        answers.extend(asked.iter().map(|_| Some(last)));
        Ok(())
    }
}

impl Transform for Instance {
    fn encapsulate(
        &mut self,
        _: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        Ok((bytes.to_vec(), lengths.to_vec()))
    }

    fn decapsulate(
        &mut self,
        _: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        Ok((bytes.to_vec(), lengths.to_vec()))
    }
}

impl Instances for Scripted {
    fn name(&self) -> &str {
        "udp"
    }

    fn transforms(&self) -> bool {
        self.with(|script| script.transforms)
    }

    fn instance(&self, _: &Site, peers: &[Lease]) -> Result<Box<dyn Transform>, String> {
        self.with(|script| {
            if script.failures > 0 {
                script.failures -= 1;
                return Err("out of memory".to_owned());
            }
            script.made.push(peers.len());
            Ok(Box::new(Instance {
                peers: u32::try_from(peers.len()).unwrap(),
                wrong: script.wrong,
            }) as _)
        })
    }
}

/// A supervisor on a thread of its own.
struct Case {
    plugin: Scripted,
    inbox: Sender<Message>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Case {
    /// Creates a case with peer 7 and a plugin that also transforms, after the first table.
    fn transforming() -> Self {
        let plugin = Scripted::default();
        plugin.with(|script| script.transforms = true);
        let case = Self::new(plugin);
        case.put(7);
        case.flush();
        case
    }

    fn new(plugin: Scripted) -> Self {
        let (inbox, messages) = mpsc::channel();
        let mut build_timer = BuildTimer::new(Instant::now());
        build_timer.changed(Instant::now());
        let path = plugin.clone();
        let hand_over = move |next: Forwarding| {
            let inbound = next.transform.as_ref().map_or(0, |transform| transform.inbound.len());
            let steers = next.steering.is_some() || next.transform.is_some();
            path.with(|script| script.given.push((next.table.probes().len(), steers, inbound)));
        };
        let supervisor = Supervisor {
            plugin: Box::new(plugin.clone()),
            site: Arc::new(site(config(), lease(1))),
            overhead: 0,
            sockets: 2,
            hand_over: Box::new(hand_over),
            peers: BTreeMap::new(),
            known: Vec::new(),
            build_timer,
            failing: None,
        };
        let thread = Some(thread::spawn(move || supervisor.run(&messages)));
        Self { plugin, inbox, thread }
    }

    fn say(&self, message: Message) {
        self.inbox.send(message).unwrap();
    }

    fn put(&self, number: u8) {
        self.say(Message::Put(Box::new(lease(number))));
    }

    /// Waits until all earlier messages have taken effect.
    fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        self.say(Message::Flush(done));
        waiting.blocking_recv().unwrap();
    }

    /// Returns what the path was given last.
    fn given(&self) -> (usize, bool, usize) {
        self.plugin.with(|script| *script.given.last().unwrap())
    }

    /// Waits until the path has been given something that is as expected.
    fn until(&self, expected: (usize, bool, usize)) {
        let begun = Instant::now();
        while self.plugin.with(|script| script.given.last() != Some(&expected)) {
            let given = self.plugin.with(|script| script.given.clone());
            assert!(begun.elapsed() < Duration::from_secs(60), "{given:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn path_gets_an_empty_table_before_any_peer_is_known() {
    let case = Case::new(Scripted::default());
    case.flush();
    assert_eq!(case.plugin.with(|script| script.given.clone()), [(0, true, 0)]);
}

#[test]
fn peers_and_matching_instance_are_handed_over_together() {
    let case = Case::new(Scripted::default());
    case.put(7);
    case.put(8);
    case.flush();
    assert_eq!(case.given(), (2, true, 0));
    assert_eq!(case.plugin.with(|script| script.made.last().copied()), Some(2));
    case.say(Message::Remove(key(7)));
    case.flush();
    assert_eq!(case.given(), (1, true, 0));
}

#[test]
fn many_changes_cost_few_instances() {
    let case = Case::new(Scripted::default());
    (2..=200).for_each(|number| case.put(number));
    case.flush();
    assert_eq!(case.given(), (199, true, 0));
    let made = case.plugin.with(|script| script.made.len());
    assert!(made < 50, "{made}");
}

#[test]
fn removal_of_an_unknown_peer_changes_nothing() {
    let case = Case::new(Scripted::default());
    case.put(7);
    case.flush();
    let before = case.plugin.with(|script| script.given.len());
    case.say(Message::Remove(key(9)));
    case.flush();
    assert_eq!(case.plugin.with(|script| script.given.len()), before);
}

#[test]
fn failed_instance_is_replaced_after_a_tenth_of_a_second() {
    let case = Case::new(Scripted::default());
    case.put(7);
    case.flush();
    let (before, begun) = (case.plugin.with(|script| script.made.len()), Instant::now());
    case.say(Message::Failed("trapped".to_owned()));
    while case.plugin.with(|script| script.made.len()) == before {
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(1));
    }
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(case.given(), (1, true, 0));
}

#[test]
fn table_follows_the_peers_while_no_instance_can_be_made() {
    let case = Case::new(Scripted::default());
    case.put(7);
    case.flush();
    case.plugin.with(|script| script.failures = 2);
    case.put(8);
    case.until((2, false, 0));
    // Once it can be made again, it steers.
    case.until((2, true, 0));
}

#[test]
fn transforming_plugin_has_an_instance_for_each_socket() {
    let case = Case::transforming();
    assert_eq!(case.given(), (1, true, 2));
}

#[test]
fn new_peer_waits_for_an_instance_that_transforms() {
    let case = Case::transforming();
    case.plugin.with(|script| script.failures = 1);
    case.put(8);
    // Only the peer that the working instances know.
    case.until((1, false, 0));
    case.until((2, true, 2));
}

#[test]
fn instance_that_answers_nonsense_is_not_used() {
    let plugin = Scripted::default();
    plugin.with(|script| script.wrong = true);
    let case = Case::new(plugin);
    case.put(7);
    case.until((1, false, 0));
    case.plugin.with(|script| script.wrong = false);
    case.until((1, true, 0));
}

#[test]
fn supervisor_ends_with_the_last_sender() {
    let mut case = Case::new(Scripted::default());
    let (inbox, _) = mpsc::channel();
    case.inbox = inbox;
    case.thread.take().unwrap().join().unwrap();
}
