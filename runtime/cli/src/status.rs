//! `heddle status`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use heddle_control::{
    Emitter, Event, Health, Mode, Peer, PeerState, Plugin, Source, Status, TrafficRules,
};
use heddle_core::text::one_line;

use crate::daemon::{Daemon, wait_for};
use crate::output::{json, list, print, span, table};

/// Number of recent events shown.
const EVENTS: usize = 10;

/// Longest value of a field, in characters.
const LONGEST: usize = 1000;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    daemon: Daemon,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

pub(crate) fn status(arguments: &Arguments) -> anyhow::Result<()> {
    let status = wait_for(async { Ok(arguments.daemon.client().status().await?) })?;
    // With a clock before 1970, no ages are shown.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    print(&if arguments.json { json(&status)? } else { render(&status, now) })
}

/// Formats the status for people; `now` is in seconds since 1970.
fn render(status: &Status, now: u64) -> String {
    let mut text = String::new();
    for (name, value) in fields(status) {
        text += &format!("{name:<9}  {}\n", one_line(&value, LONGEST));
    }
    if !status.devices.is_empty() {
        text += "\n";
        text += &devices(status);
    }
    text += "\n";
    text += &peers(&status.peers, now);
    if status.unlisted > 0 {
        text += &format!("{} more records are rejected\n", status.unlisted);
    }
    if !status.events.is_empty() {
        text += "\n";
        text += &events(&status.events, now);
    }
    text
}

/// Returns names and values, one per line.
fn fields(status: &Status) -> Vec<(&'static str, String)> {
    let readiness = if status.ready { "ready" } else { "not ready" };
    let running = span(status.uptime);
    let mut fields =
        vec![("heddled", format!("{}, {readiness}, running for {running}", status.version))];
    for unmet in &status.unmet {
        fields.push(("not met", format!("{}: {}", unmet.condition, unmet.reason)));
    }
    let node = &status.node;
    fields.push((
        "node",
        match &node.name {
            Some(name) => format!("{name}, node id {}", node.id),
            None => format!("node id {}", node.id),
        },
    ));
    fields.push(("network", status.network.clone()));
    if let Some(reason) = &status.superseded {
        fields.push(("", format!("network config: {reason}")));
    }
    fields.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    if let Some(underlay) = &status.underlay {
        let addresses = list(&underlay.public_addresses);
        let (name, mtu) = (&underlay.interface, underlay.mtu);
        fields.push(("interface", format!("{name}, mtu {mtu}, public address {addresses}")));
    }
    if let Some(lease) = &status.lease {
        let backend = lease.backend.as_deref().unwrap_or("not named");
        let subnets = list(&lease.subnets);
        let mtu = lease.mtu;
        fields.push(("lease", format!("{subnets}, backend {backend}, mtu {mtu} for containers")));
    }
    if let Some(backend) = &status.backend {
        fields.push(("backend", plugin(backend)));
        fields.push(("", format!("sha256 {}", backend.digest)));
        fields.push(("", calls(backend)));
    }
    fields.extend(status.emitters.iter().map(|found| ("emitter", emitter(found))));
    if let Some(found) = &status.rules {
        fields.push(("rules", rules(found)));
    }
    if let Some(packets) = &status.packets {
        let counted = packets.iter().filter(|(_, count)| **count > 0);
        let counted: Vec<_> = counted.map(|(name, count)| format!("{name} {count}")).collect();
        let counted = if counted.is_empty() { "none yet".to_owned() } else { counted.join(", ") };
        fields.push(("packets", counted));
    }
    let changes = &status.changes;
    fields.push((
        "changes",
        format!(
            "{} put, {} replaced, {} removed, {} refused",
            changes.put, changes.replaced, changes.removed, changes.refused
        ),
    ));
    let repaired = changes.repairs.iter().filter(|(_, count)| **count > 0);
    let repaired: Vec<_> = repaired.map(|(kind, count)| format!("{kind} {count}")).collect();
    if !repaired.is_empty() {
        fields.push(("", format!("drift repairs: {}", repaired.join(", "))));
    }
    fields
}

fn plugin(plugin: &Plugin) -> String {
    let source = match &plugin.source {
        Source::BuiltIn => "built in".to_owned(),
        Source::Path(path) => path.display().to_string(),
    };
    format!("{} {}, {source}", plugin.name, plugin.version)
}

fn calls(plugin: &Plugin) -> String {
    let Plugin { calls, failures, refusals, seconds, .. } = plugin;
    format!("{calls} calls in {seconds:.3} s, {failures} failed, {refusals} answers refused")
}

fn emitter(emitter: &Emitter) -> String {
    let files: Vec<_> = emitter.files.iter().map(|path| path.display()).collect();
    let plugin = plugin(&emitter.plugin);
    match &emitter.problem {
        None => format!("{plugin}: {}", list(&files)),
        Some(problem) => format!("{plugin}: {problem}"),
    }
}

fn rules(rules: &TrafficRules) -> String {
    let mode = match rules.mode {
        Mode::Iptables => "iptables",
        Mode::Nftables => "nftables",
        Mode::Other => "of another kind",
    };
    let wanted = [("masquerade", rules.masquerade), ("forward", rules.forward)];
    let wanted: Vec<_> = wanted.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let state = rules.problem.as_deref().unwrap_or("in place");
    format!("{mode}, {}: {state}", wanted.join(" and "))
}

fn devices(status: &Status) -> String {
    const HEADER: [&str; 11] = [
        "DEVICE",
        "KIND",
        "MTU",
        "RX-PACKETS",
        "RX-BYTES",
        "RX-ERRORS",
        "RX-DROPPED",
        "TX-PACKETS",
        "TX-BYTES",
        "TX-ERRORS",
        "TX-DROPPED",
    ];
    let rows = status.devices.iter().map(|device| {
        let counter = |pick: fn(&heddle_control::Counters) -> u64| {
            device.counters.as_ref().map(|counters| pick(counters).to_string()).unwrap_or_default()
        };
        [
            device.name.clone(),
            device.kind.clone(),
            device.mtu.to_string(),
            counter(|c| c.rx_packets),
            counter(|c| c.rx_bytes),
            counter(|c| c.rx_errors),
            counter(|c| c.rx_dropped),
            counter(|c| c.tx_packets),
            counter(|c| c.tx_bytes),
            counter(|c| c.tx_errors),
            counter(|c| c.tx_dropped),
        ]
    });
    table(HEADER, rows)
}

fn peers(peers: &[Peer], now: u64) -> String {
    if peers.is_empty() {
        return "no peers\n".to_owned();
    }
    // Health is present only if the operator has enabled probing.
    let asked = peers.iter().any(|peer| peer.health.is_some());
    let rows = peers.iter().map(|peer| {
        let age = (peer.changed > 0).then(|| span(now.saturating_sub(peer.changed)));
        let name = peer.node_name.as_ref().or(peer.node_id.as_ref());
        let mut row = vec![
            peer.key.clone(),
            list(&peer.public_addresses),
            name.cloned().unwrap_or_default(),
            peer.backend.clone().unwrap_or_default(),
            age.unwrap_or_default(),
            peer.objects.to_string(),
        ];
        if asked {
            row.extend(answers(peer.health));
        }
        row.push(state(peer));
        row
    });
    let mut header = vec!["PEER", "ADDRESS", "NODE", "BACKEND", "CHANGED", "OBJECTS"];
    if asked {
        header.extend(["ANSWERS", "LOSS"]);
    }
    header.push("STATE");
    table(header, rows)
}

/// Formats the most recent events, the latest first.
fn events(events: &[Event], now: u64) -> String {
    let rows = events.iter().rev().take(EVENTS).map(|event| {
        let Event { time, text, .. } = event;
        [format!("{} ago", span(now.saturating_sub(*time))), text.clone()]
    });
    table(["WHEN", "WHAT"], rows)
}

/// Formats a peer's round-trip time and its loss.
fn answers(health: Option<Health>) -> [String; 2] {
    let Some(health) = health else { return ["not probed yet".to_owned(), String::new()] };
    let answers = match health.rtt_micros {
        Some(micros) if health.reachable => format!("in {:.2} ms", micros as f64 / 1000.0),
        _ => "no".to_owned(),
    };
    [answers, format!("{:.0} %", health.loss_percent)]
}

fn state(peer: &Peer) -> String {
    let state = match peer.state {
        PeerState::InKernel => "in the kernel",
        PeerState::Incomplete => "incomplete",
        PeerState::NotUsed => "not used",
        PeerState::NoPlan => "no plan",
        PeerState::Other => "unknown to this version",
    };
    match &peer.reason {
        Some(reason) => format!("{state}: {reason}"),
        None => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use heddle_control::{Changes, Counters, Device, EventKind, Node, OwnLease, Underlay, Unmet};

    use super::*;

    fn joined() -> Status {
        Status {
            version: "0.1.0".into(),
            network: "/coreos.com/network".into(),
            ready: true,
            uptime: 11_520,
            node: Node { id: "4f3c".into(), name: Some("a".into()) },
            underlay: Some(Underlay {
                interface: "eth0".into(),
                mtu: 1500,
                public_addresses: vec!["192.168.0.72".parse().unwrap()],
            }),
            lease: Some(OwnLease {
                key: "10.244.8.0-24".into(),
                subnets: vec!["10.244.8.0/24".parse().unwrap()],
                backend: Some("vxlan".into()),
                mtu: 1450,
                ..OwnLease::default()
            }),
            backend: Some(Plugin {
                name: "vxlan".into(),
                version: "0.1.0".into(),
                digest: "9a".repeat(4),
                calls: 12,
                seconds: 0.0031,
                ..Plugin::default()
            }),
            emitters: vec![Emitter {
                plugin: Plugin {
                    name: "subnet-env".into(),
                    version: "0.1.0".into(),
                    source: Source::Path("/etc/heddle/plugins/subnet-env.wasm".into()),
                    ..Plugin::default()
                },
                files: vec!["/run/flannel/subnet.env".into()],
                problem: None,
            }],
            rules: Some(TrafficRules { masquerade: true, forward: true, ..Default::default() }),
            devices: vec![Device {
                name: "flannel.1".into(),
                kind: "vxlan".into(),
                mtu: 1450,
                counters: Some(Counters { rx_packets: 7, tx_dropped: 2, ..Counters::default() }),
            }],
            peers: vec![
                Peer {
                    key: "10.244.36.0-24".into(),
                    node_name: Some("b".into()),
                    public_addresses: vec!["192.168.0.99".parse().unwrap()],
                    backend: Some("vxlan".into()),
                    changed: 1000,
                    objects: 3,
                    state: PeerState::InKernel,
                    ..Peer::default()
                },
                Peer {
                    key: "garb\x1b[2Jage".into(),
                    state: PeerState::NotUsed,
                    reason: Some("not a lease key".into()),
                    ..Peer::default()
                },
            ],
            changes: Changes {
                put: 5,
                repairs: [("link".into(), 0), ("route".into(), 2)].into(),
                ..Changes::default()
            },
            events: (0..11)
                .map(|number| Event {
                    time: 1000 + 15 * number,
                    kind: EventKind::PeerChanged,
                    text: format!("event {number}"),
                })
                .collect(),
            ..Status::default()
        }
    }

    #[test]
    fn joined_node_is_shown_with_devices_and_peers() {
        assert_eq!(
            render(&joined(), 1185),
            "\
heddled    0.1.0, ready, running for 3h12m
node       a, node id 4f3c
network    /coreos.com/network
interface  eth0, mtu 1500, public address 192.168.0.72
lease      10.244.8.0/24, backend vxlan, mtu 1450 for containers
backend    vxlan 0.1.0, built in
           sha256 9a9a9a9a
           12 calls in 0.003 s, 0 failed, 0 answers refused
emitter    subnet-env 0.1.0, /etc/heddle/plugins/subnet-env.wasm: /run/flannel/subnet.env
rules      iptables, masquerade and forward: in place
changes    5 put, 0 replaced, 0 removed, 0 refused
           drift repairs: route 2

DEVICE     KIND   MTU   RX-PACKETS  RX-BYTES  RX-ERRORS  RX-DROPPED  TX-PACKETS  TX-BYTES  TX-ERRORS  TX-DROPPED
flannel.1  vxlan  1450  7           0         0          0           0           0         0          2

PEER            ADDRESS       NODE  BACKEND  CHANGED  OBJECTS  STATE
10.244.36.0-24  192.168.0.99  b     vxlan    3m5s     3        in the kernel
garb [2Jage     -             -     -        -        0        not used: not a lease key

WHEN       WHAT
35s ago    event 10
50s ago    event 9
1m5s ago   event 8
1m20s ago  event 7
1m35s ago  event 6
1m50s ago  event 5
2m5s ago   event 4
2m20s ago  event 3
2m35s ago  event 2
2m50s ago  event 1
"
        );
    }

    #[test]
    fn unjoined_node_shows_what_is_missing() {
        let status = Status {
            version: "0.1.0".into(),
            network: "/x".into(),
            unmet: vec![Unmet {
                condition: "network config".into(),
                reason: "/x/config does not exist".into(),
            }],
            node: Node { id: "4f3c".into(), name: None },
            ..Status::default()
        };
        assert_eq!(
            render(&status, 0),
            "\
heddled    0.1.0, not ready, running for 0s
not met    network config: /x/config does not exist
node       node id 4f3c
network    /x
changes    0 put, 0 replaced, 0 removed, 0 refused

no peers
"
        );
    }

    #[test]
    fn missing_values_and_problems_are_shown_in_place() {
        let mut status = joined();
        status.devices[0].counters = None;
        status.emitters[0].problem = Some("/run is read-only".into());
        status.rules.as_mut().unwrap().problem = Some("iptables is missing".into());
        status.packets = Some([("sent_packets".into(), 3), ("icmp".into(), 0)].into());
        let text = render(&status, 1185);
        for line in [
            "emitter    subnet-env 0.1.0, /etc/heddle/plugins/subnet-env.wasm: /run is read-only\n",
            "rules      iptables, masquerade and forward: iptables is missing\n",
            "packets    sent_packets 3\n",
            "flannel.1  vxlan  1450  -  ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
