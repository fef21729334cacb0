//! Overlaps between leases, and conflicts with the host, resolved in order of seniority.

use std::net::IpAddr;

use ipnet::IpNet;

use super::rejection::Rejection;
use super::{Delta, Held, Peers, Progress};
use crate::address::Family;
use crate::host_network::{Conflict, HostNetwork};
use crate::lease::LeaseKey;

impl Peers {
    /// Replaces the host's own network. Leases that conflict with it are no longer used; leases
    /// that no longer do are used again.
    pub fn protect(&mut self, host: HostNetwork) -> Delta {
        let mut progress = self.begin();
        if self.host != host {
            self.host = host;
            let leases = self.leases.values().map(|held| &held.lease);
            self.addresses.rebuild(&self.host, leases);
            progress.unresolved = self.leases.values().map(|held| held.seniority()).collect();
        }
        self.conclude(progress)
    }

    /// Returns the conflict of a destination with the public address of a peer in use: a route to
    /// it would divert this node's own packets to that peer.
    pub fn covered(&self, destination: IpNet) -> Option<Conflict> {
        self.addresses.taken_by(destination).find_map(|(address, key)| {
            let held = self.used(key)?;
            Some(Conflict::PeerAddress { destination, address, owner: held.lease.owner() })
        })
    }

    /// Returns the leases whose use may depend on this one, or the other way round: they overlap,
    /// or the public address of one is inside the subnet of the other. Some occur more than once.
    fn related(&self, held: &Held) -> Vec<LeaseKey> {
        let key = held.lease.key;
        let mut related: Vec<_> = self.overlaps.with(key).collect();
        let subnets = key.subnets().into_iter();
        related
            .extend(subnets.flat_map(|subnet| self.addresses.inside(subnet)).map(|(_, key)| key));
        let addresses = held.lease.public_addresses().into_iter();
        related.extend(addresses.flat_map(|address| self.overlaps.with_address(address)));
        related
    }

    /// Marks the leases related to this one, so that their overlaps and conflicts are resolved
    /// again.
    pub(super) fn mark_unresolved(&self, key: LeaseKey, progress: &mut Progress) {
        let Some(held) = self.leases.get(&key) else { return };
        let others = self.related(held).into_iter().filter_map(|other| self.leases.get(&other));
        progress.unresolved.extend(others.map(|held| held.seniority()));
    }

    /// Resolves overlaps and conflicts, and returns the resulting delta.
    pub(super) fn conclude(&mut self, mut progress: Progress) -> Delta {
        self.resolve_overlaps(&mut progress);
        let Progress { mut delta, before, missing, .. } = progress;
        for (key, before) in before {
            match (before, self.get(key)) {
                (Some(_), None) => _ = delta.removed.insert(key),
                (before, Some(now)) if before.as_deref() != Some(now) => {
                    delta.changed.insert(key);
                }
                _ => {}
            }
        }
        delta.missing = &self.missing - &missing;
        // Keep only the rejections that still hold after the whole batch.
        delta.rejected.retain(|(key, why)| self.rejected.get(key) == Some(why));
        delta
    }

    /// Resolves overlaps and conflicts in order of seniority: the outcome of a lease depends only
    /// on its seniors.
    fn resolve_overlaps(&mut self, progress: &mut Progress) {
        while let Some((.., key)) = progress.unresolved.pop_first() {
            let Some(held) = self.leases.get(&key) else { continue };
            let own = held.seniority();
            // A lease that conflicts with this host still wins overlaps, because other hosts use
            // it: its rivals are not used here, either.
            let rivals = self.overlaps.with(key).filter_map(|other| self.leases.get(&other));
            let rivals = rivals.filter(|held| held.superseded_by.is_none());
            let superseded_by =
                rivals.map(|held| held.seniority()).filter(|other| *other < own).min();
            let superseded_by = superseded_by.map(|(.., other)| other);
            let conflict = self.conflict(held);
            let stands = |superseded_by: Option<LeaseKey>, conflict: &Option<Conflict>| {
                (superseded_by.is_none(), conflict.is_none())
            };
            if stands(held.superseded_by, &held.conflict) != stands(superseded_by, &conflict) {
                self.remember(key, progress);
                let others = self.related(held).into_iter();
                let others = others.filter_map(|other| self.leases.get(&other));
                let after = others.map(|held| held.seniority()).filter(|other| *other > own);
                progress.unresolved.extend(after);
            }
            let rejection = conflict.clone().map(Rejection::Conflict);
            if let Some(held) = self.leases.get_mut(&key) {
                (held.superseded_by, held.conflict) = (superseded_by, conflict);
            }
            match (superseded_by, rejection) {
                // A lease held only for the grace period is dropped, not kept as rejected, when it
                // loses.
                (Some(_), _) | (_, Some(_)) if self.missing.contains(&key) => {
                    self.remove(key, progress);
                }
                // A conflict is reported before an overlap: it remains when the other lease goes.
                (_, Some(rejection)) => self.reject(&key.to_string(), rejection, progress),
                (Some(superseded_by), None) => self.note_overlap(key, superseded_by, progress),
                (None, None) => {
                    let text = key.to_string();
                    if self.is_relative(&text) {
                        self.rejected.remove(&text);
                    }
                }
            }
        }
    }

    /// Returns the conflict of a lease with the host, with a senior peer, or with the lease's own
    /// node.
    fn conflict(&self, held: &Held) -> Option<Conflict> {
        let enabled =
            |subnet: &IpNet| self.config.networks.get(Family::of_network(*subnet)).is_some();
        let subnets = || held.lease.key.subnets().into_iter().filter(enabled);
        let addresses = || held.lease.public_addresses().into_iter();
        subnets()
            .find_map(|subnet| self.host.conflict(subnet))
            .or_else(|| subnets().find_map(|subnet| self.covers_peer(held, subnet)))
            .or_else(|| addresses().find_map(|it| self.inside_peer(held, it)))
            .or_else(|| addresses().find_map(|it| self.inside_own(it)))
    }

    /// Returns the conflict of a lease's public address with this node's own subnet.
    fn inside_own(&self, address: IpAddr) -> Option<Conflict> {
        let subnet =
            self.own.subnets().into_iter().find(|subnet| self.host.loses(address, *subnet))?;
        Some(Conflict::InsidePeer { address, subnet, owner: "this node".to_owned() })
    }

    /// Returns the conflict of a lease's subnet with its own public address, or with that of a
    /// senior peer.
    fn covers_peer(&self, held: &Held, subnet: IpNet) -> Option<Conflict> {
        self.addresses.taken_by(subnet).find_map(|(address, key)| {
            let owner = match key == held.lease.key {
                // A lease conflicts with its own address whether or not it is used at present.
                true => Some(held),
                // The host has a route to exactly this subnet, and reaches the peer through it.
                false if self.host.longest(address) == Some(subnet.prefix_len()) => {
                    self.leases.get(&key).map(Box::as_ref)
                }
                false => self.used(key).filter(|other| other.seniority() < held.seniority()),
            };
            let owner = owner?.lease.owner();
            Some(Conflict::PeerAddress { destination: subnet, address, owner })
        })
    }

    /// Returns the conflict of a lease's public address with the subnet of a senior peer.
    fn inside_peer(&self, held: &Held, address: IpAddr) -> Option<Conflict> {
        self.overlaps.with_address(address).find_map(|key| {
            let peer = self.used(key).filter(|other| other.seniority() < held.seniority())?;
            let subnet = *key.subnets().get(Family::of(address))?;
            if self.host.longest(address) == Some(subnet.prefix_len()) {
                return None;
            }
            let conflict = Conflict::InsidePeer { address, subnet, owner: peer.lease.owner() };
            self.host.loses(address, subnet).then_some(conflict)
        })
    }

    fn note_overlap(&mut self, key: LeaseKey, superseded_by: LeaseKey, progress: &mut Progress) {
        let owner =
            self.leases.get(&superseded_by).map_or_else(String::new, |held| held.lease.owner());
        self.reject(
            &key.to_string(),
            Rejection::OverlapsPeer { key: superseded_by, owner },
            progress,
        );
    }
}
