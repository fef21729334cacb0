//! What the daemon is doing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The state of a daemon at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The network: the etcd prefix without a slash at its end, or the directory.
    pub network: String,
    /// Whether everything holds that the daemon is there for.
    pub ready: bool,
    /// What does not hold. Empty when ready.
    pub unmet: Vec<Unmet>,
    /// Why another start would begin with another network config, or not begin at all.
    pub superseded: Option<String>,
    /// Problems that need an operator and do not affect readiness, a sentence each: networks of the host that overlap
    /// the overlay.
    pub warnings: Vec<String>,
    /// All that has to hold, by name, in the order in which a start gets there.
    pub conditions: Vec<String>,
    /// When this was put together, in seconds since 1970 (UTC): what other times are to be compared with.
    pub time: u64,
    /// Seconds since the daemon was started.
    pub uptime: u64,
    /// Who this node is.
    pub node: Node,
    /// How changes of leases are heard. None before the store is followed.
    pub watch: Option<Watch>,
    /// What carries the overlay. None before the node has joined.
    pub underlay: Option<Underlay>,
    /// What the node has. None before it has joined.
    pub lease: Option<OwnLease>,
    /// How peers are reached. None before the node has joined.
    pub backend: Option<Plugin>,
    /// What writes files.
    pub emitters: Vec<Emitter>,
    /// Masquerading and forwarding. None where the daemon is told to program neither.
    pub rules: Option<TrafficRules>,
    /// The devices of the node's plan.
    pub devices: Vec<Device>,
    /// Every other record, usable or not, in the order of the keys. Of the records that concern no peer, the first thousand.
    pub peers: Vec<Peer>,
    /// The number of further records, none of which can be used.
    pub unlisted: u64,
    /// The counters of the packet path by name, where the backend has one.
    pub packets: Option<BTreeMap<String, u64>>,
    /// What the daemon changed in the kernel since it was started.
    pub changes: Changes,
    /// What it lately did and saw, the oldest first. So many are kept and no more.
    pub events: Vec<Event>,
}

/// A condition that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unmet {
    /// Its name, for people.
    pub condition: String,
    /// Why not.
    pub reason: String,
}

/// A node's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `NodeID` in its lease.
    pub id: String,
    /// Its host name, if it has one.
    pub name: Option<String>,
}

/// What carries the overlay on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Underlay {
    /// The interface.
    pub interface: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The addresses under which peers reach the node, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
}

/// The lease of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnLease {
    /// Its key below `<prefix>/subnets/`.
    pub key: String,
    /// The subnets, IPv4 first.
    pub subnets: Vec<IpNet>,
    /// `BackendType`. None where the backend leaves it out, as udp does.
    pub backend: Option<String>,
    /// The MTU for containers in bytes.
    pub mtu: u32,
    /// Seconds until it ends unless it is renewed; 0: it is past that. None: it has no end, like a reservation or a lease
    /// in a directory.
    pub remaining: Option<u64>,
    /// Seconds since it was taken or last renewed.
    pub age: u64,
}

/// How changes of leases are heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// Seconds since the store was last heard. etcd is asked for a sign of life when it is silent, a
    /// directory is read again and again.
    pub lag: u64,
    /// Why changes are not heard at present; none: they are.
    pub stale: Option<String>,
}

/// A plugin at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it was found.
    pub source: Source,
    /// SHA-256 of the component, in lower-case hexadecimal digits.
    pub digest: String,
    /// Calls since it was started, whatever came of them.
    pub calls: u64,
    /// Those that trapped, took too long or wanted too much memory.
    pub failures: u64,
    /// Answers that the host refused.
    pub refusals: u64,
    /// Seconds spent in calls.
    pub seconds: f64,
}

/// Where a plugin was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Inside the daemon's binary.
    #[default]
    BuiltIn,
    /// In a file.
    Path(PathBuf),
}

/// An emitter and its files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Emitter {
    /// The plugin.
    pub plugin: Plugin,
    /// The files that it keeps.
    pub files: Vec<PathBuf>,
    /// Why they are not as they should be; none: they are.
    pub problem: Option<String>,
}

/// Masquerading and forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficRules {
    /// What they are programmed with.
    pub mode: Mode,
    /// Whether what leaves the overlay is masqueraded (`--ip-masq`).
    pub masquerade: bool,
    /// Whether forwarding is allowed for the overlay (`--iptables-forward-rules`).
    pub forward: bool,
    /// Why they are not in place; none: they are.
    pub problem: Option<String>,
}

/// What traffic rules are programmed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// iptables and ip6tables.
    #[default]
    Iptables,
    /// nftables (`EnableNFTables`).
    Nftables,
    /// Something that this reader does not know.
    #[serde(other)]
    Other,
}

/// A device of the node's plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The kernel's name of its kind.
    pub kind: String,
    /// Its planned MTU in bytes.
    pub mtu: u32,
    /// What went through it. None: it is not there.
    pub counters: Option<Counters>,
}

/// What went through a device since it was made (`struct rtnl_link_stats64` in `linux/if_link.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Bad packets received.
    pub rx_errors: u64,
    /// Packets received and not processed.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped on their way out.
    pub tx_dropped: u64,
}

/// A record below `<prefix>/subnets` that is not this node's own, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its key below `<prefix>/subnets/`. May be anything at all, if it is not used.
    pub key: String,
    /// The node's id. None for nodes of flannel's.
    pub node_id: Option<String>,
    /// The node's host name. None for nodes of flannel's.
    pub node_name: Option<String>,
    /// Under which addresses it is reached, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
    /// `BackendType`, if there is one.
    pub backend: Option<String>,
    /// When the daemon last saw it change, in seconds since 1970 (UTC).
    pub changed: u64,
    /// How many objects its plan has in the kernel or wants there.
    pub objects: u64,
    /// What became of it.
    pub state: PeerState,
    /// Why; of one in the kernel, what is wrong with a newer record that is not used.
    pub reason: Option<String>,
    /// Whether it answers. None where nobody asks it.
    pub health: Option<Health>,
    /// The kind of its conflict with the host's own network: `connected`, `route`, `store`, `own-address` or
    /// `peer-address`. None if there is none.
    pub conflict: Option<String>,
}

/// Whether a peer answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Whether it does.
    pub reachable: bool,
    /// The round trip in microseconds. None as long as nothing came back.
    pub rtt_micros: Option<u64>,
    /// How much of what was lately sent did not come back, in percent: 0 to 100.
    pub loss_percent: f64,
    /// Since when it is reachable, or is not, in seconds since 1970 (UTC).
    pub since: u64,
}

/// What became of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Its plan is in the kernel.
    InKernel,
    /// A part of its plan is not in the kernel.
    Incomplete,
    /// The record cannot be used.
    NotUsed,
    /// The plugin has no plan for it.
    NoPlan,
    /// Something that this reader does not know.
    #[default]
    #[serde(other)]
    Other,
}

impl PeerState {
    /// As it is written: `in-kernel`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InKernel => "in-kernel",
            Self::Incomplete => "incomplete",
            Self::NotUsed => "not-used",
            Self::NoPlan => "no-plan",
            Self::Other => "other",
        }
    }
}

/// How many changes were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Objects put where there was nothing.
    pub put: u64,
    /// Objects put in another's place.
    pub replaced: u64,
    /// Objects removed.
    pub removed: u64,
    /// Attempts that the kernel refused.
    pub refused: u64,
    /// Those of the above that put right what somebody else had changed, by kind of object: `link`, `sysctl`, `address`,
    /// `fdb`, `neighbour` and `route`.
    pub repairs: BTreeMap<String, u64>,
}

/// Something that the daemon did or saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// When, in seconds since 1970 (UTC).
    pub time: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The whole of it, in one line for people.
    pub text: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A peer is new.
    PeerJoined,
    /// A peer's record changed.
    PeerChanged,
    /// A peer is gone.
    PeerLeft,
    /// A peer does not answer over the overlay.
    PeerSilent,
    /// A peer answers over the overlay.
    PeerAnswers,
    /// What somebody had changed in the kernel is as it should be again.
    Drift,
    /// The kernel refused a change.
    Refused,
    /// A call to a plugin failed, or its answer was refused.
    Plugin,
    /// A record cannot be used.
    Record,
    /// A network of the host overlaps the overlay.
    Network,
    /// Changes of leases are not heard.
    StoreLost,
    /// Changes of leases are heard again.
    StoreBack,
    /// Everything holds.
    Ready,
    /// Something does not hold that did.
    NotReady,
    /// Something that this reader does not know.
    #[default]
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back_as_written() {
        let status = Status {
            ready: true,
            backend: Some(Plugin {
                source: Source::Path("/opt/x.wasm".into()),
                seconds: 0.25,
                ..Plugin::default()
            }),
            peers: vec![Peer {
                state: PeerState::NotUsed,
                health: Some(Health { rtt_micros: Some(310), ..Health::default() }),
                ..Peer::default()
            }],
            events: vec![Event { time: 7, kind: EventKind::StoreBack, text: "etcd".into() }],
            packets: Some([("sent_packets".to_owned(), 3)].into()),
            ..Status::default()
        };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        assert!(text.contains(r#""source":{"path":"/opt/x.wasm"}"#), "{text}");
        assert!(text.contains(r#""state":"not-used""#), "{text}");
    }

    #[test]
    fn an_older_or_newer_daemon_is_understood() {
        let text = r#"{"version":"9","colour":"blue","rules":{"mode":"ebpf"},
            "peers":[{"key":"10.244.1.0-24","state":"on-holiday","weight":3}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!((status.version.as_str(), status.ready), ("9", false));
        assert_eq!(status.rules.unwrap().mode, Mode::Other);
        assert_eq!(status.peers[0].state, PeerState::Other);
        assert_eq!(status.peers[0].health, None);
    }

    #[test]
    fn a_state_s_name_is_what_is_written() {
        for state in [
            PeerState::InKernel,
            PeerState::Incomplete,
            PeerState::NotUsed,
            PeerState::NoPlan,
            PeerState::Other,
        ] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
