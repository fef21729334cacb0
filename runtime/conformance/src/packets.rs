//! Rules for backends that carry packets in user space.

use std::net::IpAddr;

use heddle_core::lease::Lease;
use heddle_plugin::{PacketInstance, PacketPlugin, Reason};
use ipnet::IpNet;

use crate::arbitrary::Arbitrary;
use crate::baseline::Baseline;
use crate::report::{Report, Rule};
use crate::{Scenario, Thoroughness};

/// Shortest and longest packet tried, in bytes: an IPv6 header, and an Ethernet frame's payload
/// less some overhead.
const PACKET: (u32, u32) = (40, 1400);

pub(crate) fn examine(
    plugin: &PacketPlugin,
    scenario: &Scenario,
    good: &Baseline,
    thoroughness: &Thoroughness,
    report: &mut Report,
) {
    let here = plugin.instance(&good.site, &good.peers);
    let Some(mut here) = sound(report, "update", here) else { return };
    steers(&mut here, good, report);
    if plugin.transforms() {
        transforms(plugin, here, scenario, good, thoroughness, report);
    }
}

/// Records the outcome of a call.
fn sound<T>(report: &mut Report, call: &str, answer: Result<T, Reason>) -> Option<T> {
    let (robust, granted) = match &answer {
        Ok(_) => (true, true),
        Err(Reason::Refused(_)) => (true, false),
        Err(_) => (false, true),
    };
    let say =
        || answer.as_ref().err().map(|reason| format!("{call}: {reason}")).unwrap_or_default();
    report.look(Rule::Robust, robust, say);
    report.look(Rule::Granted, granted, say);
    answer.ok()
}

/// Checks that addresses in a peer's subnet are steered to that peer or nowhere, and all others
/// nowhere.
fn steers(instance: &mut PacketInstance, good: &Baseline, report: &mut Report) {
    let mut asked: Vec<(IpAddr, Option<u32>)> = Vec::new();
    for (index, peer) in (0..).zip(&good.peers) {
        for part in &peer.families {
            let (first, last) = (part.subnet.network(), part.subnet.broadcast());
            asked.extend([first, last].map(|address| (address, Some(index))));
        }
    }
    for part in &good.site.lease.families {
        asked.push((part.subnet.network(), None));
    }
    for nowhere in ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::"] {
        asked.extend(nowhere.parse().ok().map(|address| (address, None)));
    }
    let destinations: Vec<_> = asked.iter().map(|(address, _)| *address).collect();
    // Repeat in another order and with an empty batch: an instance is called for as long as the
    // peers stay the same.
    let mut backwards = destinations.clone();
    backwards.reverse();
    for destinations in [&destinations, &Vec::new(), &backwards, &destinations] {
        let mut answers = Vec::new();
        let steered = instance.steer(destinations, &mut answers);
        if sound(report, "steer", steered).is_none() {
            return;
        }
        for (destination, answer) in destinations.iter().zip(answers) {
            let right =
                asked.iter().find(|(address, _)| address == destination).map(|(_, peer)| *peer);
            let good = answer.is_none() || Some(answer) == right;
            report.look(Rule::Steers, good, || {
                format!(
                    "{destination} goes to peer {answer:?}: expected {:?} or none",
                    right.flatten()
                )
            });
        }
        let reached = destinations.is_empty() || good.peers.is_empty();
        let mut answers = Vec::new();
        let _ = instance.steer(destinations, &mut answers);
        report.look(Rule::Steers, reached || answers.iter().any(Option::is_some), || {
            "no packet goes to any peer".to_owned()
        });
    }
}

/// Checks that packets that one node encapsulates for another come out there unchanged.
fn transforms(
    plugin: &PacketPlugin,
    mut here: PacketInstance,
    scenario: &Scenario,
    good: &Baseline,
    thoroughness: &Thoroughness,
    report: &mut Report,
) {
    let mut arbitrary = Arbitrary::new(thoroughness.seed);
    for (key, node) in &scenario.nodes {
        let found = (0..).zip(&good.peers).find(|(_, peer)| peer.key == *key);
        let Some((at, peer)) = found else { continue };
        // The peer table of the other node: all nodes but itself.
        let mut others: Vec<Lease> = good.peers.iter().filter(|p| p.key != *key).cloned().collect();
        others.push(good.site.lease.clone());
        let back = u32::try_from(others.len() - 1).unwrap_or(u32::MAX);
        let site = scenario.site(node).with_lease(peer.clone());
        let there = plugin.instance(&site, &others);
        let Some(mut there) = sound(report, "update", there) else { return };
        for _ in 0..thoroughness.rounds.div_ceil(10) {
            let (mut bytes, lengths) = arbitrary.packets(PACKET.0, PACKET.1);
            address(&mut bytes, &lengths, &good.site.lease, peer);
            let sent = here.encapsulate(at, &bytes, &lengths);
            let Some((payload, sent_lengths)) = sound(report, "encapsulate", sent) else { return };
            let received = there.decapsulate(back, &payload, &sent_lengths);
            let Some(received) = sound(report, "decapsulate", received) else { return };
            report.look(Rule::Transforms, received == (bytes, lengths), || {
                format!("packets for peer {} are not what they were on the other side", peer.key)
            });
            let (junk, lengths) = arbitrary.packets(0, PACKET.1);
            if sound(report, "decapsulate of junk", there.decapsulate(back, &junk, &lengths))
                .is_none()
            {
                return;
            }
        }
    }
}

/// Turns bytes into packets: writes IP headers from one node's subnet to another's, as far as there
/// is room.
fn address(bytes: &mut [u8], lengths: &[u32], from: &Lease, to: &Lease) {
    let mut rest = bytes;
    for length in lengths {
        let (packet, behind) = rest.split_at_mut(*length as usize);
        rest = behind;
        // The longest packet has `PACKET.1` bytes.
        let Some(payload) = length.checked_sub(PACKET.0) else { continue };
        let [total, payload] = [*length, payload].map(|it| u16::try_from(it).unwrap_or(u16::MAX));
        let family = |lease: &Lease| lease.families.first().map(|part| part.subnet);
        match (family(from), family(to)) {
            (Some(IpNet::V4(from)), Some(IpNet::V4(to))) => {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&total.to_be_bytes());
                packet[12..16].copy_from_slice(&from.addr().octets());
                packet[16..20].copy_from_slice(&to.addr().octets());
            }
            (Some(IpNet::V6(from)), Some(IpNet::V6(to))) => {
                packet[0] = 0x60;
                packet[4..6].copy_from_slice(&payload.to_be_bytes());
                packet[8..24].copy_from_slice(&from.addr().octets());
                packet[24..40].copy_from_slice(&to.addr().octets());
            }
            _ => {}
        }
    }
}
