//! Checks that the packet filters of this host let the backend's datagrams in and out.
//!
//! A finding is a policy or a rule that drops them for certain. Rules that cannot be evaluated, such
//! as those with a limit or a mark, count as accepting. So does everything about a peer that
//! answers the daemon's probes, because these need both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use heddle_control::Status;
use heddle_core::address::{Family, LinkName};
use heddle_core::lease::Lease;
use heddle_core::object::{Object, Plan};
use heddle_core::text::list;
use heddle_firewall::{DatagramDrop, DatagramVerdict, Datagrams, Direction, Filter, Manager};
use heddle_plugin::NodePlan;

use super::planned_vxlans;
use crate::report::{Finding, Severity};

/// Number of peers named.
const NAMED: usize = 5;

/// A UDP socket of the backend, and the peers that it exchanges datagrams with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) own: IpAddr,
    port: u16,
    /// True if datagrams are sent from the port. VXLAN devices send from changing ones.
    one_port: bool,
    /// True if datagrams leave by the underlay whatever the routes say, as those of a VXLAN device.
    bound: bool,
    pub(crate) peers: Vec<IpAddr>,
}

/// Device that datagrams are expected to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) underlay: LinkName,
    /// The bridge, bond or VRF that it belongs to.
    pub(crate) master: Option<LinkName>,
}

/// Returns the sockets of a plan. Peers that have plans without an entry of the VXLAN device are
/// reached without it.
pub(crate) fn sockets(plan: &NodePlan, peer_plans: &[Plan], peers: &[Lease]) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for (link, vxlan) in planned_vxlans(plan) {
        let entries = peer_plans.iter().flat_map(|plan| &plan.objects);
        let entries = entries.filter_map(|object| match object {
            Object::FdbEntry(entry) if entry.link == link.name => Some(entry.destination),
            _ => None,
        });
        let reached: BTreeSet<_> = entries.collect();
        // Only without any peer is the port checked for peers to come.
        if peers.is_empty() || !reached.is_empty() {
            sockets.push(Socket {
                own: vxlan.local,
                port: vxlan.port,
                one_port: false,
                bound: true,
                peers: reached.into_iter().collect(),
            });
        }
    }
    for &own in plan.tunnel.iter().flat_map(|tunnel| &tunnel.local) {
        let public = |peer: &Lease| Some(peer.families.get(Family::of(own))?.public_address);
        let peers = peers.iter().take(peer_plans.len()).filter_map(public).collect();
        let port = plan.tunnel.as_ref().map_or(0, |tunnel| tunnel.port);
        sockets.push(Socket { own, port, one_port: true, bound: false, peers });
    }
    sockets
}

/// Returns the datagrams of a socket in both directions. `ways` are the devices of the routes to
/// the peers. What arrives from a peer whose route has another device than the underlay may arrive
/// on either.
pub(crate) fn datagrams(socket: &Socket, path: Path, ways: &[Option<LinkName>]) -> Vec<Datagrams> {
    let Path { underlay, master } = path;
    let with = |direction, peer, link| {
        let Socket { own, port, one_port, .. } = *socket;
        Datagrams { direction, own, peer, port, one_port, link, master }
    };
    if socket.peers.is_empty() {
        let any = |direction| with(direction, None, Some(underlay));
        return [Direction::In, Direction::Out].map(any).to_vec();
    }
    let both = |(index, &peer): (usize, &IpAddr)| {
        let way = ways.get(index).copied().flatten();
        let out = if socket.bound { Some(underlay) } else { way };
        [
            with(Direction::In, Some(peer), way.filter(|way| *way == underlay)),
            with(Direction::Out, Some(peer), out),
        ]
    };
    socket.peers.iter().enumerate().flat_map(both).collect()
}

/// Returns a finding for each policy or rule that drops datagrams. `status` is the daemon's, if it
/// answers.
pub(crate) fn check(
    datagrams: &[Datagrams],
    verdicts: &[DatagramVerdict],
    status: Option<&Status>,
) -> Vec<Finding> {
    let answering = answering(status);
    let mut causes: BTreeMap<(Direction, u16, &DatagramDrop), Vec<&Datagrams>> = BTreeMap::new();
    for (datagrams, verdict) in datagrams.iter().zip(verdicts) {
        let DatagramVerdict::Dropped(drops) = verdict else { continue };
        if datagrams.peer.is_some_and(|peer| answering.contains(&peer)) {
            continue;
        }
        for drop in drops {
            causes.entry((datagrams.direction, datagrams.port, drop)).or_default().push(datagrams);
        }
    }
    let found = causes.into_iter().map(|((direction, port, drop), dropped)| {
        let alike = |it: &&Datagrams| {
            it.direction == direction && it.port == port && it.family() == drop.family
        };
        finding(drop, &dropped, datagrams.iter().filter(alike).count())
    });
    found.collect()
}

/// Returns the addresses of the peers that answer over the overlay, whatever the rules look like.
fn answering(status: Option<&Status>) -> BTreeSet<IpAddr> {
    let peers = status.into_iter().flat_map(|status| &status.peers);
    let answering = peers.filter(|peer| peer.health.is_some_and(|health| health.reachable));
    answering.flat_map(|peer| peer.public_addresses.iter().copied()).collect()
}

/// `all` is the number of peers, whether or not they are concerned.
fn finding(drop: &DatagramDrop, dropped: &[&Datagrams], all: usize) -> Finding {
    let first = dropped[0];
    let (port, who) = (first.port, named(dropped, all));
    let (problem, symptom) = match first.direction {
        Direction::In => (
            format!("{drop} drops what {who} sends to UDP port {port} of this host"),
            "Nothing arrives from there over the overlay, so containers there are not reached",
        ),
        Direction::Out => (
            format!("{drop} drops what this host sends to UDP port {port} of {who}"),
            "Nothing is sent there over the overlay, so containers there are not reached",
        ),
    };
    let (remedy, command) = remedy(drop, first);
    Finding {
        check: "firewall",
        severity: Severity::Error,
        problem,
        symptom: symptom.to_owned(),
        remedy: remedy.to_owned(),
        command: Some(command),
    }
}

fn named(dropped: &[&Datagrams], all: usize) -> String {
    let addresses: Vec<_> = dropped.iter().filter_map(|it| it.peer).collect();
    match addresses.len() {
        0 => format!("any {} peer", dropped[0].family()),
        1 => addresses[0].to_string(),
        some if some == all => format!("each of the {all} {} peers", dropped[0].family()),
        some => {
            let named = list(addresses.iter().take(NAMED));
            let more = some.saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("each of {some} peers ({named}{more})")
        }
    }
}

/// Returns the remedy, with the command of the program that the rules come from.
fn remedy(drop: &DatagramDrop, datagrams: &Datagrams) -> (&'static str, String) {
    let port = datagrams.port;
    let incoming = datagrams.direction == Direction::In;
    let link = datagrams.link;
    match drop.manager {
        Some(Manager::Firewalld) if incoming => {
            let zone = zone(&drop.chain).map_or_else(String::new, |zone| format!(" --zone={zone}"));
            let add = format!("firewall-cmd --permanent{zone} --add-port={port}/udp");
            ("Open the port in firewalld:", format!("{add} && firewall-cmd --reload"))
        }
        Some(Manager::Ufw) => {
            let direction = if incoming { "in" } else { "out" };
            let on = link.map_or_else(String::new, |link| format!(" on {link}"));
            let command = format!("ufw allow {direction}{on} proto udp to any port {port}");
            ("Open the port in ufw:", command)
        }
        _ if drop.filter == Filter::Nftables => {
            let (DatagramDrop { table, base, .. }, key) =
                (drop, if incoming { "iifname" } else { "oifname" });
            let on = link.map_or_else(String::new, |link| format!(" {key} {link}"));
            let command = format!("nft insert rule {table} {base}{on} udp dport {port} accept");
            (IN_FRONT, command)
        }
        _ => {
            let option = if incoming { "-i" } else { "-o" };
            let on = link.map_or_else(String::new, |link| format!(" {option} {link}"));
            let (program, base) = (program(drop), &drop.base);
            let table =
                if drop.table == "filter" { String::new() } else { format!(" -t {}", drop.table) };
            let command = format!("{program}{table} -I {base}{on} -p udp --dport {port} -j ACCEPT");
            (IN_FRONT, command)
        }
    }
}

/// Remedy where rules are written by hand, or by a program that is not known.
const IN_FRONT: &str = "Accept these datagrams in front of that, for the peers' network only if others reach this host, and add \
                        the rule to the configuration that is loaded at boot:";

/// Returns the zone of firewalld that a chain belongs to: `public` for `filter_IN_public_deny`.
fn zone(chain: &str) -> Option<&str> {
    let zone = chain.strip_prefix("filter_IN_").or_else(|| chain.strip_prefix("IN_"))?;
    let parts = ["_pre", "_log", "_deny", "_allow", "_post"];
    Some(parts.iter().find_map(|part| zone.strip_suffix(part)).unwrap_or(zone))
}

/// Returns the iptables of the family and flavour.
fn program(drop: &DatagramDrop) -> &'static str {
    match (drop.family, drop.filter) {
        (Family::V6, Filter::IptablesLegacy) => "ip6tables-legacy",
        (Family::V6, _) => "ip6tables-nft",
        (Family::V4, Filter::IptablesLegacy) => "iptables-legacy",
        (Family::V4, _) => "iptables-nft",
    }
}

#[cfg(test)]
mod tests;
