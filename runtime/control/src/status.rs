//! The daemon's state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use heddle_core::link_counters::LinkCounters;
use heddle_core::plugin_source::PluginSource;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The state of a daemon at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Name of the network: the etcd prefix without a trailing slash, or the directory.
    pub network: String,
    /// True if all conditions hold.
    pub ready: bool,
    /// Conditions that do not hold. Empty when ready.
    pub unmet: Vec<UnmetCondition>,
    /// Reason why a restart would begin with another network config, or would fail. None if the
    /// config is unchanged.
    pub superseded: Option<String>,
    /// Problems that need an operator and do not affect readiness, one sentence each: networks of
    /// the host that overlap the overlay.
    pub warnings: Vec<String>,
    /// Names of all conditions, in the order in which a start meets them.
    pub conditions: Vec<String>,
    /// Time of this status, in seconds since 1970 (UTC), to compare other times with.
    pub time: u64,
    /// Seconds since the daemon was started.
    pub uptime: u64,
    /// Identity of this node.
    pub node: NodeIdentity,
    /// State of the watch on the store. None before it begins.
    pub watch: Option<WatchStatus>,
    /// Interface that carries the overlay. None before the node has joined.
    pub underlay: Option<UnderlayStatus>,
    /// Lease of this node. None before it has joined.
    pub lease: Option<OwnLeaseStatus>,
    /// Backend plugin. None before the node has joined.
    pub backend: Option<Plugin>,
    /// Emitters, which write files.
    pub emitters: Vec<Emitter>,
    /// Masquerading and forwarding. None if the daemon is configured to program neither.
    pub rules: Option<TrafficRules>,
    /// Devices of the node's plan.
    pub devices: Vec<Device>,
    /// All other records, usable or not, in the order of their keys. Of the records that concern no
    /// peer, only the first thousand.
    pub peers: Vec<Peer>,
    /// Number of records beyond those, none of which is usable.
    pub unlisted: u64,
    /// Counters of the packet path by name, if the backend has one.
    pub packets: Option<BTreeMap<String, u64>>,
    /// Changes that the daemon has made in the kernel since it started.
    pub changes: Changes,
    /// Recent events, the oldest first. The number kept is limited.
    pub events: Vec<Event>,
}

/// A condition that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnmetCondition {
    /// Name of the condition, for people.
    pub condition: String,
    /// Reason why it does not hold.
    pub reason: String,
}

/// A node's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeIdentity {
    /// `NodeID` in its lease.
    pub id: String,
    /// Host name, if there is one.
    pub name: Option<String>,
}

/// Interface that carries the overlay on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnderlayStatus {
    /// Name of the interface.
    pub interface: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses under which peers reach the node, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
}

/// The lease of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnLeaseStatus {
    /// Key below `<prefix>/subnets/`.
    pub key: String,
    /// Subnets, IPv4 first.
    pub subnets: Vec<IpNet>,
    /// `BackendType`. None if the backend leaves it out, as udp does.
    pub backend: Option<String>,
    /// MTU for containers, in bytes.
    pub mtu: u32,
    /// Seconds until it expires unless it is renewed; 0 if that time has passed. None if it never
    /// expires, like a reservation or a lease in a directory.
    pub remaining: Option<u64>,
    /// Seconds since it was created or last renewed.
    pub age: u64,
}

/// State of the watch on the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchStatus {
    /// Seconds since the last response of the store. A silent etcd is probed; a directory is
    /// re-read periodically.
    pub lag: u64,
    /// Reason why changes are not received at present; None if they are.
    pub stale: Option<String>,
}

/// A running plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plugin {
    /// Name of the plugin.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Origin of the plugin.
    pub source: PluginSource,
    /// SHA-256 of the component, in lower-case hexadecimal digits.
    pub digest: String,
    /// Calls since it started, including failed ones.
    pub calls: u64,
    /// Calls that trapped, or exceeded the limit of time or memory.
    pub failures: u64,
    /// Results that the host refused.
    pub refusals: u64,
    /// Seconds spent in calls.
    pub seconds: f64,
}

/// An emitter and its files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Emitter {
    /// The plugin.
    pub plugin: Plugin,
    /// Files that it writes.
    pub files: Vec<PathBuf>,
    /// Reason why they are not as they should be; None if they are.
    pub problem: Option<String>,
}

/// Masquerading and forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficRules {
    /// Program that the rules are set up with.
    pub mode: RulesMode,
    /// True if packets that leave the overlay are masqueraded (`--ip-masq`).
    pub masquerade: bool,
    /// True if forwarding is accepted for the overlay (`--iptables-forward-rules`).
    pub forward: bool,
    /// Reason why the rules are not in place; None if they are.
    pub problem: Option<String>,
}

/// Program that the firewall rules are set up with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RulesMode {
    /// iptables and ip6tables.
    #[default]
    Iptables,
    /// nftables (`EnableNFTables`).
    Nftables,
    /// A value that this reader does not know.
    #[serde(other)]
    Other,
}

/// A device of the node's plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Name of the device.
    pub name: String,
    /// Kind, as the kernel names it.
    pub kind: String,
    /// Planned MTU in bytes.
    pub mtu: u32,
    /// Traffic counters. None if the device does not exist.
    pub counters: Option<LinkCounters>,
}

/// A record below `<prefix>/subnets` that is not this node's own, and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Key below `<prefix>/subnets/`. Any text, if the record is not used.
    pub key: String,
    /// ID of the node. None for flannel nodes.
    pub node_id: Option<String>,
    /// Host name of the node. None for flannel nodes.
    pub node_name: Option<String>,
    /// Addresses under which the node is reachable, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
    /// `BackendType`, if there is one.
    pub backend: Option<String>,
    /// Time of the last change that the daemon has seen, in seconds since 1970 (UTC).
    pub changed: u64,
    /// Number of objects in its plan, whether in the kernel already or not.
    pub objects: u64,
    /// State of the peer.
    pub state: PeerState,
    /// Reason for the state. For a peer in the kernel, the problem of a newer record that is not
    /// used.
    pub reason: Option<String>,
    /// Result of the reachability probes. None if it is not probed.
    pub health: Option<PeerHealth>,
    /// Kind of its conflict with the host's own network: `connected`, `route`, `store`,
    /// `own-address` or `peer-address`. None if there is none.
    pub conflict: Option<String>,
}

/// Result of the reachability probes of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerHealth {
    /// True if the peer answers.
    pub reachable: bool,
    /// Round-trip time in microseconds. None until there is an answer.
    pub rtt_micros: Option<u64>,
    /// Loss among recent probes, in percent: 0 to 100.
    pub loss_percent: f64,
    /// Time since which it has been reachable, or unreachable, in seconds since 1970 (UTC).
    pub since: u64,
}

/// State of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Its plan is in the kernel.
    InKernel,
    /// A part of its plan is not in the kernel.
    Incomplete,
    /// The record is unusable.
    NotUsed,
    /// The plugin has no plan for it.
    NoPlan,
    /// A value that this reader does not know.
    #[default]
    #[serde(other)]
    Other,
}

impl PeerState {
    /// Returns the name used in JSON: `in-kernel`.
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

/// Numbers of changes made in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Objects created.
    pub put: u64,
    /// Objects replaced.
    pub replaced: u64,
    /// Objects removed.
    pub removed: u64,
    /// Attempts that the kernel rejected.
    pub refused: u64,
    /// Drift repairs among the above, by kind of object: `link`, `sysctl`, `address`, `fdb`,
    /// `neighbour` and `route`; and those of emitters' files, `file`.
    pub repairs: BTreeMap<String, u64>,
}

/// Something that the daemon did or observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Time of the event, in seconds since 1970 (UTC).
    pub time: u64,
    /// Kind of the event.
    pub kind: EventKind,
    /// Full description, in one line for people.
    pub text: String,
}

/// Kind of an event.
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
    /// Drift was repaired: an object that another program had changed is restored.
    Drift,
    /// The kernel refused a change.
    Refused,
    /// A call to a plugin failed, or its answer was refused.
    Plugin,
    /// A record is unusable.
    Record,
    /// A network of the host overlaps the overlay.
    Network,
    /// The watch on the store was lost.
    StoreLost,
    /// The watch on the store is restored.
    StoreBack,
    /// All conditions hold.
    Ready,
    /// A condition no longer holds.
    NotReady,
    /// A value that this reader does not know.
    #[default]
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_survives_serialization() {
        let status = Status {
            ready: true,
            backend: Some(Plugin {
                source: PluginSource::File("/opt/x.wasm".into()),
                seconds: 0.25,
                ..Plugin::default()
            }),
            peers: vec![Peer {
                state: PeerState::NotUsed,
                health: Some(PeerHealth { rtt_micros: Some(310), ..PeerHealth::default() }),
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
    fn status_of_other_version_is_readable() {
        let text = r#"{"version":"9","colour":"blue","rules":{"mode":"ebpf"},
            "peers":[{"key":"10.244.1.0-24","state":"on-holiday","weight":3}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!((status.version.as_str(), status.ready), ("9", false));
        assert_eq!(status.rules.unwrap().mode, RulesMode::Other);
        assert_eq!(status.peers[0].state, PeerState::Other);
        assert_eq!(status.peers[0].health, None);
    }

    #[test]
    fn state_name_equals_its_json() {
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
