//! The difference between the desired and the observed state of the kernel.
//!
//! [`diff`] compares everything; [`diff_keys`] compares only some keys, which keeps the change of
//! one lease cheap among ten thousand. Both are pure and idempotent: once their answer is applied,
//! nothing is left to change.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::LinkName;
use crate::host_network::HostRouting;
use crate::object::{Link, LinkKind, Object, ObjectKey};

pub use crate::scope::Scope;

/// An object found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The object.
    pub object: Object,
    /// True if this daemon may remove the object. Foreign objects are replaced if they are in the
    /// way of a plan, and otherwise never touched.
    pub ours: bool,
}

/// The part of the kernel within a [`Scope`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// All objects found, by the key the kernel identifies them by.
    pub objects: BTreeMap<ObjectKey, Observation>,
    /// The host's own routes and addresses that overlap the scope's networks.
    pub host: HostRouting,
}

impl Observed {
    /// Returns the devices found.
    pub fn links(&self) -> impl Iterator<Item = LinkName> {
        // Keys are sorted, devices first.
        self.objects.keys().map_while(|key| match key {
            ObjectKey::Link(name) => Some(*name),
            _ => None,
        })
    }

    /// Records a change that was applied.
    pub fn note(&mut self, change: &ObjectChange) {
        match change {
            ObjectChange::Create(object) | ObjectChange::Put(object) => self.note_put(object),
            ObjectChange::Replace(object) => {
                if let Object::Link(link) = object {
                    self.forget_link(link.name);
                }
                self.note_put(object);
            }
            ObjectChange::Remove(object) => {
                if let Object::Link(link) = object {
                    self.forget_link(link.name);
                }
                self.objects.remove(&object.key());
            }
        }
    }

    fn note_put(&mut self, object: &Object) {
        self.objects.insert(object.key(), Observation { object: object.clone(), ours: true });
    }

    fn forget_link(&mut self, name: LinkName) {
        self.objects.retain(|_, observation| observation.object.link() != Some(name));
    }
}

/// One step from the observed towards the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectChange {
    /// Creates the object: the last observation found nothing under its key. A route that appeared
    /// there since is not touched.
    Create(Object),
    /// Changes the object under this key in place, or creates it.
    Put(Object),
    /// Removes the object under this key, then creates it anew: it cannot be changed in place.
    Replace(Object),
    /// Removes the object, which is given as observed.
    Remove(Object),
}

impl ObjectChange {
    /// Returns the object concerned.
    pub fn object(&self) -> &Object {
        match self {
            Self::Create(object)
            | Self::Put(object)
            | Self::Replace(object)
            | Self::Remove(object) => object,
        }
    }
}

/// Returns all changes, in the order in which they have to be applied: removals first, in reverse
/// order of creation; then devices, settings, addresses, FDB entries, neighbours and routes.
pub fn diff(desired: &BTreeMap<ObjectKey, &Object>, observed: &Observed) -> Vec<ObjectChange> {
    let keys: BTreeSet<&ObjectKey> = desired.keys().chain(observed.objects.keys()).collect();
    diff_keys(keys, |key| desired.get(key).copied(), observed)
}

/// Returns the changes for these keys, in the order in which they have to be applied.
pub fn diff_keys<'k, 'd>(
    keys: BTreeSet<&'k ObjectKey>,
    desired: impl Fn(&ObjectKey) -> Option<&'d Object>,
    observed: &Observed,
) -> Vec<ObjectChange> {
    let mut removals = Vec::new();
    let mut additions = Vec::new();
    // The kernel removes the objects on a device along with the device, also if we replace it. The
    // exception is a foreign device, which is kept: hence objects on a replaced device are created
    // anew, and undesired ones are removed explicitly.
    let (mut removed, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    // Networks to which the kernel itself adds connected routes, which planned routes are to
    // replace.
    let mut connected = BTreeSet::new();
    for key in keys {
        let on = |links: &BTreeSet<LinkName>, seen: &Observation| {
            seen.object.link().is_some_and(|link| links.contains(&link))
        };
        let wanted = desired(key);
        let present = observed.objects.get(key).filter(|seen| !on(&removed, seen));
        let present = present.filter(|seen| wanted.is_none() || !on(&replaced, seen));
        match (wanted, present) {
            (None, None) => {}
            (None, Some(seen)) if seen.ours => {
                if let Object::Link(link) = &seen.object {
                    removed.insert(link.name);
                }
                removals.push(ObjectChange::Remove(seen.object.clone()));
            }
            (None, Some(_)) => {}
            (Some(wanted), None) => {
                if let Object::Address(address) = wanted {
                    connected.insert(address.network.trunc());
                }
                let is_in_place = match wanted {
                    Object::Route(route) if connected.contains(&route.destination) => true,
                    _ => observed.objects.contains_key(key),
                };
                let change = if is_in_place { ObjectChange::Put } else { ObjectChange::Create };
                additions.push(change(wanted.clone()));
            }
            (Some(wanted), Some(seen)) => match compare(wanted, seen) {
                Verdict::Same => {}
                Verdict::Changeable => additions.push(ObjectChange::Put(wanted.clone())),
                Verdict::Incompatible => {
                    if let Object::Link(link) = wanted {
                        replaced.insert(link.name);
                    }
                    additions.push(ObjectChange::Replace(wanted.clone()));
                }
            },
        }
    }
    removals.reverse();
    removals.append(&mut additions);
    removals
}

/// Returns true if the observation of one object matches the desired state, so that no resync is
/// needed.
///
/// `seen` is the object now under the key; None if it is gone.
pub fn agrees(desired: Option<&Object>, seen: Option<&Observation>) -> bool {
    match (desired, seen) {
        (Some(wanted), Some(seen)) => matches!(compare(wanted, seen), Verdict::Same),
        (Some(_), None) => false,
        (None, Some(seen)) => !seen.ours,
        (None, None) => true,
    }
}

/// Returns true if this change repairs drift: the object under its key matched the desired state at
/// the last observation, with this daemon's own changes since.
pub fn is_repair(change: &ObjectChange, desired: Option<&Object>, before: &Observed) -> bool {
    agrees(desired, before.objects.get(&change.object().key()))
}

/// Returns true if the objects on a device can be applied although the device itself does not
/// match: it is ours, and only a setting is wrong. A device that is missing, foreign or has to be
/// recreated returns false.
pub fn carries(desired: Option<&Object>, seen: Option<&Observation>) -> bool {
    match (desired, seen) {
        (Some(wanted), Some(seen)) => {
            seen.ours && !matches!(compare(wanted, seen), Verdict::Incompatible)
        }
        _ => false,
    }
}

enum Verdict {
    Same,
    Changeable,
    Incompatible,
}

fn compare(wanted: &Object, seen: &Observation) -> Verdict {
    match (wanted, &seen.object) {
        (Object::Link(wanted), Object::Link(link)) if !compatible(wanted, link) => {
            Verdict::Incompatible
        }
        (Object::Link(wanted), Object::Link(link)) if seen.ours && same_link(wanted, link) => {
            Verdict::Same
        }
        (wanted, found) if seen.ours && wanted == found => Verdict::Same,
        _ => Verdict::Changeable,
    }
}

/// Returns true if a device can be changed into the wanted one without recreating it: the options
/// that the kernel fixes at creation match. flannel keeps the same devices (`vxlanLinksIncompat` in
/// `pkg/backend/vxlan/device.go`).
fn compatible(wanted: &Link, found: &Link) -> bool {
    match (&wanted.kind, &found.kind) {
        (LinkKind::Vxlan(wanted), LinkKind::Vxlan(found)) => {
            (wanted.vni, wanted.local, wanted.underlay, wanted.port, wanted.gbp)
                == (found.vni, found.local, found.underlay, found.port, found.gbp)
        }
        (LinkKind::Tun, LinkKind::Tun) => true,
        _ => false,
    }
}

/// Returns true if a compatible device matches the wanted one. Any MAC matches if none is planned.
fn same_link(wanted: &Link, found: &Link) -> bool {
    let mac = wanted.mac.or(found.mac);
    *found == Link { mac, ..wanted.clone() }
}

#[cfg(test)]
mod tests;
