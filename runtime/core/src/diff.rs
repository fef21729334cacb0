//! The difference between the kernel as it should be and as it is.
//!
//! [`diff`] compares everything; [`diff_keys`] only some keys, which is what makes the change of one lease cheap
//! among ten thousand. Both are pure, and applying their answer leaves nothing to change.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::address::LinkName;
use crate::object::{Link, LinkKind, Object, ObjectKey};

/// Which part of the kernel is this daemon's business.
///
/// Ownership is read off the kernel itself, so that it survives the daemon: routes carry Heddle's protocol id,
/// devices carry an alias, and what hangs on such a device goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The overlay's networks. Routes to a destination inside one of them are looked at.
    pub networks: Vec<IpNet>,
    /// The devices that are planned.
    pub links: BTreeSet<LinkName>,
    /// The alias (`ip link set … alias`) that marks a device as made by this daemon. Names the etcd prefix, so
    /// that two daemons on one host leave each other's devices alone.
    pub alias: String,
}

impl Scope {
    /// Whether a destination lies inside the overlay.
    pub fn covers(&self, destination: IpNet) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(&destination))
    }
}

/// Something found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What it is.
    pub object: Object,
    /// Whether it is ours to remove. What is not ours is replaced where it stands in a plan's way, and otherwise
    /// never touched.
    pub ours: bool,
}

/// The part of the kernel within a [`Scope`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Everything found, by what the kernel tells it apart by.
    pub objects: BTreeMap<ObjectKey, Observation>,
}

impl Observed {
    /// Takes note of a change that was applied.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::Put(object) => self.note_put(object),
            Change::Replace(object) => {
                if let Object::Link(link) = object {
                    self.forget_link(link.name);
                }
                self.note_put(object);
            }
            Change::Remove(object) => {
                if let Object::Link(link) = object {
                    self.forget_link(link.name);
                }
                self.objects.remove(&object.key());
            }
        }
    }

    fn note_put(&mut self, object: &Object) {
        self.objects.insert(
            object.key(),
            Observation {
                object: object.clone(),
                ours: true,
            },
        );
    }

    fn forget_link(&mut self, name: LinkName) {
        self.objects
            .retain(|_, observation| observation.object.link() != Some(name));
    }
}

/// One step towards the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make it so: create it, or change it in place.
    Put(Object),
    /// Remove what stands under its name, then create it: it cannot be changed in place.
    Replace(Object),
    /// Remove it. The object is as it was observed.
    Remove(Object),
}

impl Change {
    /// The object concerned.
    pub fn object(&self) -> &Object {
        match self {
            Self::Put(object) | Self::Replace(object) | Self::Remove(object) => object,
        }
    }
}

/// Everything that has to change, in the order in which it has to be applied: removals first, the last built first;
/// then devices, settings, addresses, FDB entries, neighbours and routes.
pub fn diff(desired: &BTreeMap<ObjectKey, &Object>, observed: &Observed) -> Vec<Change> {
    let keys: BTreeSet<&ObjectKey> = desired.keys().chain(observed.objects.keys()).collect();
    diff_keys(keys, |key| desired.get(key).copied(), observed)
}

/// What has to change for these keys, in the order in which it has to be applied.
pub fn diff_keys<'k, 'd>(
    keys: BTreeSet<&'k ObjectKey>,
    desired: impl Fn(&ObjectKey) -> Option<&'d Object>,
    observed: &Observed,
) -> Vec<Change> {
    let mut removals = Vec::new();
    let mut additions = Vec::new();
    // What hangs on a device that is removed or replaced goes with it.
    let mut gone = BTreeSet::new();
    for key in keys {
        let present = observed
            .objects
            .get(key)
            .filter(|seen| seen.object.link().is_none_or(|link| !gone.contains(&link)));
        match (desired(key), present) {
            (None, None) => {}
            (None, Some(seen)) if seen.ours => {
                if let Object::Link(link) = &seen.object {
                    gone.insert(link.name);
                }
                removals.push(Change::Remove(seen.object.clone()));
            }
            (None, Some(_)) => {}
            (Some(wanted), None) => additions.push(Change::Put(wanted.clone())),
            (Some(wanted), Some(seen)) => match compare(wanted, seen) {
                Verdict::Same => {}
                Verdict::Changeable => additions.push(Change::Put(wanted.clone())),
                Verdict::Incompatible => {
                    if let Object::Link(link) = wanted {
                        gone.insert(link.name);
                    }
                    additions.push(Change::Replace(wanted.clone()));
                }
            },
        }
    }
    removals.reverse();
    removals.append(&mut additions);
    removals
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
        (Object::Link(wanted), Object::Link(link)) if seen.ours && agrees(wanted, link) => {
            Verdict::Same
        }
        (wanted, found) if seen.ours && wanted == found => Verdict::Same,
        _ => Verdict::Changeable,
    }
}

/// Whether a device can be made what is wanted without taking it down: the options that the kernel fixes at creation
/// agree. flannel keeps the same devices (`vxlanLinksIncompat` in `pkg/backend/vxlan/device.go`).
fn compatible(wanted: &Link, found: &Link) -> bool {
    match (&wanted.kind, &found.kind) {
        (LinkKind::Vxlan(wanted), LinkKind::Vxlan(found)) => {
            (
                wanted.vni,
                wanted.local,
                wanted.underlay,
                wanted.port,
                wanted.gbp,
            ) == (
                found.vni,
                found.local,
                found.underlay,
                found.port,
                found.gbp,
            )
        }
        _ => false,
    }
}

/// Whether a compatible device is what is wanted. A MAC that is not planned may be any.
fn agrees(wanted: &Link, found: &Link) -> bool {
    let mac = wanted.mac.or(found.mac);
    *found
        == Link {
            mac,
            ..wanted.clone()
        }
}
