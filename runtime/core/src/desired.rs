//! The desired state: the union of the node's own plan and the plan of each peer.
//!
//! Each plan belongs to an [`Owner`] and is replaced or withdrawn as a whole, which touches only the objects in it.
//! Two owners may ask for different things under one name (two leases with one MAC, say). The first owner in order
//! then has it, whatever order they came in, and the other gets it once the first no longer wants it.

use std::collections::{BTreeMap, BTreeSet};

use crate::lease::LeaseKey;
use crate::object::{Object, ObjectKey, Plan};

/// Whose plan something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// This node's. Comes before all peers.
    Node,
    /// The plan for a peer.
    Peer(LeaseKey),
}

/// An object and who wants it.
type Claim = (Owner, Object);

/// What should be in the kernel.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    plans: BTreeMap<Owner, Vec<ObjectKey>>,
    /// In the owners' order; never empty.
    claims: BTreeMap<ObjectKey, Vec<Claim>>,
}

impl Desired {
    /// Replaces an owner's plan. Returns the keys under which something may have changed.
    pub fn set(&mut self, owner: Owner, plan: Plan) -> BTreeSet<ObjectKey> {
        let mut touched = self.remove(owner);
        let keys: Vec<_> = plan.objects.iter().map(Object::key).collect();
        for (key, object) in keys.iter().zip(plan.objects) {
            // Nearly always one, and a vector that grows by itself makes room for four.
            let claims = self.claims.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
            let place = claims.partition_point(|(other, _)| *other < owner);
            claims.insert(place, (owner, object));
        }
        touched.extend(keys.iter().cloned());
        self.plans.insert(owner, keys);
        touched
    }

    /// Withdraws an owner's plan. Returns the keys under which something may have changed.
    pub fn remove(&mut self, owner: Owner) -> BTreeSet<ObjectKey> {
        let keys = self.plans.remove(&owner).unwrap_or_default();
        for key in &keys {
            if let Some(claims) = self.claims.get_mut(key) {
                claims.retain(|(other, _)| *other != owner);
                if claims.is_empty() {
                    self.claims.remove(key);
                }
            }
        }
        keys.into_iter().collect()
    }

    /// Whether an owner has a plan.
    pub fn contains(&self, owner: Owner) -> bool {
        self.plans.contains_key(&owner)
    }

    /// What an owner's plan has, whether or not another has it under the same key.
    pub fn keys(&self, owner: Owner) -> &[ObjectKey] {
        self.plans.get(&owner).map_or(&[], Vec::as_slice)
    }

    /// What should be there under a key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.claims.get(key)?.first().map(|(_, object)| object)
    }

    /// Who asked for what is there under a key.
    pub fn owner(&self, key: &ObjectKey) -> Option<Owner> {
        self.claims.get(key)?.first().map(|(owner, _)| *owner)
    }

    /// Everything that should be there.
    pub fn objects(&self) -> BTreeMap<ObjectKey, &Object> {
        let objects = self.claims.iter().filter_map(|(key, claims)| Some((key, claims.first()?)));
        objects.map(|(key, (_, object))| (key.clone(), object)).collect()
    }

    /// Those of an owner's objects that another owner has in another form: the key and that owner.
    pub fn conflicts(&self, owner: Owner) -> impl Iterator<Item = (&ObjectKey, Owner)> {
        self.keys(owner).iter().filter_map(move |key| {
            let claims = self.claims.get(key)?;
            let (first, winner) = claims.first()?;
            let (_, own) = claims.iter().find(|(other, _)| *other == owner)?;
            (own != winner).then_some((key, *first))
        })
    }

    /// How many objects there should be.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether nothing should be there.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{FdbEntry, Metric, Route, RouteAction};

    fn peer(index: u8) -> Owner {
        Owner::Peer(format!("10.244.{index}.0-24").parse().unwrap())
    }

    fn fdb(mac: u8, destination: &str) -> Object {
        Object::FdbEntry(FdbEntry {
            link: "flannel.1".parse().unwrap(),
            mac: crate::address::MacAddress([2, 0, 0, 0, 0, mac]),
            destination: destination.parse().unwrap(),
        })
    }

    fn route(destination: &str) -> Object {
        Object::Route(Route {
            metric: Metric::Default,
            destination: destination.parse().unwrap(),
            action: RouteAction::Blackhole,
        })
    }

    fn plan(objects: &[Object]) -> Plan {
        Plan { objects: objects.to_vec() }
    }

    #[test]
    fn a_new_plan_touches_what_the_old_one_had_and_nothing_of_others() {
        let mut desired = Desired::default();
        desired.set(peer(1), plan(&[route("10.244.1.0/24"), fdb(1, "192.168.0.1")]));
        desired.set(peer(2), plan(&[route("10.244.2.0/24")]));
        let touched = desired.set(peer(1), plan(&[route("10.244.1.0/24"), fdb(3, "192.168.0.1")]));
        let expected = [route("10.244.1.0/24"), fdb(1, "192.168.0.1"), fdb(3, "192.168.0.1")];
        assert_eq!(touched, expected.iter().map(Object::key).collect());
        assert_eq!(desired.len(), 3);
        assert_eq!(desired.get(&fdb(1, "192.168.0.1").key()), None);
    }

    #[test]
    fn the_first_owner_has_it_in_whatever_order_they_came() {
        let (one, two) = (fdb(1, "192.168.0.1"), fdb(1, "192.168.0.2"));
        for order in [[1, 2], [2, 1]] {
            let mut desired = Desired::default();
            for index in order {
                desired
                    .set(peer(index), plan(&[if index == 1 { one.clone() } else { two.clone() }]));
            }
            assert_eq!(desired.get(&one.key()), Some(&one));
            assert_eq!(desired.conflicts(peer(2)).collect::<Vec<_>>(), [(&one.key(), peer(1))]);
            assert_eq!(desired.conflicts(peer(1)).count(), 0);
            desired.remove(peer(1));
            assert_eq!(desired.get(&one.key()), Some(&two));
            assert_eq!(desired.conflicts(peer(2)).count(), 0);
        }
    }

    #[test]
    fn nothing_is_left_of_a_plan_that_was_withdrawn() {
        let mut desired = Desired::default();
        desired.set(peer(1), plan(&[route("10.244.1.0/24")]));
        assert_eq!(desired.remove(peer(1)), [route("10.244.1.0/24").key()].into());
        assert!(desired.is_empty() && !desired.contains(peer(1)));
        assert!(desired.remove(peer(1)).is_empty());
    }
}
