//! `heddle status`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use heddle_control::{
    Emitter, Event, Peer, PeerCounts, PeerHealth, PeerState, Plugin, PluginSource, RulesMode,
    Status, TrafficRules,
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
    /// Exit with 3 if the node is not ready or a peer has a fault, for monitoring
    #[arg(long)]
    check: bool,
}

/// Prints the status. Returns false if a check was requested, and the node is not ready or a peer
/// has a fault.
pub(crate) fn status(arguments: &Arguments) -> anyhow::Result<bool> {
    let status = wait_for(async { Ok(arguments.daemon.client()?.status().await?) })?;
    // With a clock before 1970, no ages are shown.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    print(&if arguments.json { json(&status)? } else { render(&status, now) })?;
    let is_healthy = status.ready && PeerCounts::of(&status.peers).faulty() == 0;
    Ok(is_healthy || !arguments.check)
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
        text += &format!("further rejected records: {}\n", status.unlisted);
    }
    if !status.events.is_empty() {
        text += "\n";
        text += &events(&status.events, now);
    }
    text
}

/// Returns the lines on which the health of node and peers depends.
fn headline(status: &Status) -> Vec<(&'static str, String)> {
    let readiness = if status.ready { "ready" } else { "not ready" };
    let (version, running) = (&status.version, span(status.uptime));
    let peers = PeerCounts::of(&status.peers);
    let mut fields = vec![("heddled", format!("{version}, {readiness}, running for {running}"))];
    if peers.total() > 0 {
        fields.push(("peers", peers.to_string()));
    }
    for unmet in &status.unmet {
        fields.push(("not met", format!("{}: {}", unmet.condition, unmet.reason)));
    }
    fields
}

/// Returns names and values, one per line.
fn fields(status: &Status) -> Vec<(&'static str, String)> {
    let mut fields = headline(status);
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
        PluginSource::Embedded => "built in".to_owned(),
        PluginSource::File(path) => path.display().to_string(),
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
        RulesMode::Iptables => "iptables",
        RulesMode::Nftables => "nftables",
        RulesMode::Other => "of another kind",
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
        let counter = |pick: fn(&heddle_control::LinkCounters) -> u64| {
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
fn answers(health: Option<PeerHealth>) -> [String; 2] {
    let Some(health) = health else { return ["not probed yet".to_owned(), String::new()] };
    let answers = match health.rtt_micros {
        Some(micros) if health.reachable => format!("in {:.2} ms", micros as f64 / 1000.0),
        _ => "no".to_owned(),
    };
    [answers, format!("{:.0} %", health.loss_percent)]
}

fn state(peer: &Peer) -> String {
    let is_silent = peer.health.is_some_and(|health| !health.reachable);
    let state = match peer.state {
        PeerState::InKernel if is_silent => "in the kernel, does not answer",
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
mod tests;
