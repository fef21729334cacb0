//! Rejected records: the first ones by key and reason, the rest by number.
//!
//! Anybody who can write to the store can write millions of them, so the memory for each is
//! bounded.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use super::rejection::Rejection;

/// Maximum number of records that are kept by key and reason, not counting those that concern known
/// leases.
pub(crate) const NAMED: usize = 1000;

/// Maximum number of further records that are deduplicated, at some 12 bytes each. Records beyond
/// it are counted exactly only by a snapshot.
const COUNTED: usize = 400_000;

/// Outcome of [`Rejected::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// The record is new or has another reason than before, and is kept by name.
    Named,
    /// The record is new and only counted.
    Counted,
    /// The record was known with the same reason, or may have been counted already.
    Known,
}

/// The records that cannot be used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rejected {
    named: BTreeMap<String, Named>,
    /// Number of named records that concern no lease.
    strangers: usize,
    /// Hashes of the keys of unnamed records.
    counted: HashSet<u64>,
    /// Number of unnamed records for which there was no room in `counted`.
    beyond: usize,
    /// True for a snapshot, in which each record occurs once.
    is_list: bool,
    hasher: RandomState,
}

#[derive(Clone, Debug)]
struct Named {
    rejection: Rejection,
    concerns_lease: bool,
}

impl Rejected {
    /// Returns an empty collection for a snapshot, whose key hashes can be compared with this
    /// one's.
    pub(crate) fn new_like(&self) -> Self {
        Self { hasher: self.hasher.clone(), is_list: true, ..Self::default() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Rejection> {
        Some(&self.named.get(key)?.rejection)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Rejection)> {
        self.named.iter().map(|(key, named)| (key.as_str(), &named.rejection))
    }

    /// Returns the number of records that are not kept by name.
    pub(crate) fn unnamed(&self) -> usize {
        self.counted.len() + self.beyond
    }

    /// Adds a record. A record that `concerns_lease` is always kept by name: there are no more of
    /// them than leases.
    pub(crate) fn insert(
        &mut self,
        key: &str,
        rejection: Rejection,
        concerns_lease: bool,
    ) -> Noted {
        let is_known = self.get(key) == Some(&rejection);
        let hash = self.hasher.hash_one(key);
        let has_room = self.strangers < NAMED && !self.counted.contains(&hash);
        if concerns_lease || has_room || self.named.contains_key(key) {
            self.remove(key);
            self.strangers += usize::from(!concerns_lease);
            self.named.insert(key.to_owned(), Named { rejection, concerns_lease });
            return if is_known { Noted::Known } else { Noted::Named };
        }
        if self.counted.contains(&hash) {
            return Noted::Known;
        }
        if self.counted.len() < COUNTED {
            self.counted.insert(hash);
            return Noted::Counted;
        }
        // The record may have been counted before.
        if !self.is_list {
            return Noted::Known;
        }
        self.beyond += 1;
        Noted::Counted
    }

    pub(crate) fn remove(&mut self, key: &str) {
        match self.named.remove(key) {
            Some(named) => self.strangers -= usize::from(!named.concerns_lease),
            None if self.counted.is_empty() => {}
            None => _ = self.counted.remove(&self.hasher.hash_one(key)),
        }
    }

    /// Takes over the unnamed records of a snapshot. Returns how many of them are new.
    pub(crate) fn replace_unnamed(&mut self, list: &mut Self) -> usize {
        let before = (std::mem::take(&mut self.counted), self.beyond);
        self.counted = std::mem::take(&mut list.counted);
        self.beyond = list.beyond;
        let new = self.counted.iter().filter(|hash| !before.0.contains(hash)).count();
        new + self.beyond.saturating_sub(before.1)
    }

    /// Returns the records that are kept by name.
    pub(crate) fn into_named(self) -> impl Iterator<Item = (String, Rejection)> {
        self.named.into_iter().map(|(key, named)| (key, named.rejection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(text: &str) -> Rejection {
        Rejection::OutsideNetwork(if text.len() > 3 { "Network" } else { "IPv6Network" })
    }

    #[test]
    fn records_of_leases_take_no_names_from_others() {
        let mut rejected = Rejected::default();
        for number in 0..NAMED + 1 {
            let noted = rejected.insert(&format!("lease {number:06}"), rejection("long"), true);
            assert_eq!(noted, Noted::Named);
        }
        for number in 0..NAMED + 1 {
            let noted = rejected.insert(&format!("{number:06}"), rejection("long"), false);
            assert_eq!(noted, if number < NAMED { Noted::Named } else { Noted::Counted });
        }
        // Removing a named record makes room, and so does one that now concerns a lease.
        rejected.remove("000001");
        assert_eq!(rejected.insert("other", rejection("long"), false), Noted::Named);
        assert_eq!(rejected.insert("another", rejection("long"), false), Noted::Counted);
        assert_eq!(rejected.insert("000002", rejection("no"), true), Noted::Named);
        assert_eq!(rejected.insert("third", rejection("long"), false), Noted::Named);
        // A record that no longer concerns a lease takes room again.
        assert_eq!(rejected.insert("lease 000001", rejection("no"), false), Noted::Named);
        rejected.remove("000003");
        assert_eq!(rejected.insert("fourth", rejection("long"), false), Noted::Counted);
    }

    #[test]
    fn records_beyond_the_named_are_counted_exactly() {
        let mut rejected = Rejected::default();
        for number in 0..NAMED + 500 {
            let noted = rejected.insert(&format!("{number:06}"), rejection("long"), false);
            assert_eq!(noted, if number < NAMED { Noted::Named } else { Noted::Counted });
        }
        assert_eq!((rejected.iter().count(), rejected.unnamed()), (NAMED, 500));
        assert_eq!(rejected.insert("001200", rejection("x"), false), Noted::Known);
        assert_eq!(rejected.insert("000001", rejection("x"), false), Noted::Named);
        assert_eq!(rejected.insert("000001", rejection("x"), false), Noted::Known);
        rejected.remove("001200");
        rejected.remove("nobody");
        assert_eq!(rejected.unnamed(), 499);
        // A record of a known lease is always kept by name.
        assert_eq!(rejected.insert("001300", rejection("x"), true), Noted::Named);
        assert_eq!((rejected.iter().count(), rejected.unnamed()), (NAMED + 1, 498));
    }

    #[test]
    fn records_beyond_the_counted_ones_take_no_memory() {
        let mut rejected = Rejected::default();
        let mut list = rejected.new_like();
        for number in 0..NAMED + COUNTED + 7 {
            list.insert(&number.to_string(), rejection("long"), false);
        }
        assert_eq!((list.counted.len(), list.unnamed()), (COUNTED, COUNTED + 7));
        rejected.replace_unnamed(&mut list);
        // A record that is written repeatedly counts once.
        for _ in 0..3 {
            rejected.insert("beyond", rejection("long"), false);
        }
        assert_eq!(rejected.unnamed(), COUNTED + 7);
    }

    #[test]
    fn snapshot_replaces_the_counted_records() {
        let mut rejected = Rejected::default();
        let mut list = rejected.new_like();
        for number in 0..NAMED + 10 {
            rejected.insert(&number.to_string(), rejection("long"), false);
            list.insert(&number.to_string(), rejection("long"), false);
        }
        list.insert("another", rejection("long"), false);
        assert_eq!(rejected.replace_unnamed(&mut list), 1);
        assert_eq!(rejected.unnamed(), 11);
    }
}
