//! Values per address family.

use std::iter::Chain;
use std::net::IpAddr;
use std::option;

use ipnet::IpNet;

use crate::address::Family;

/// One value for each of the families that have one, in the order IPv4, IPv6.
///
/// Values of two of these are paired by family ([`zip`](Self::zip)), never by position. Lists exist
/// only outside: in the WIT, in JSON and in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PerFamily<T> {
    /// The value for IPv4.
    pub v4: Option<T>,
    /// The value for IPv6.
    pub v6: Option<T>,
}

impl<T> PerFamily<T> {
    /// No value in either family.
    pub const NONE: Self = Self { v4: None, v6: None };

    /// Returns the values of a function, which is called for IPv4 first.
    pub fn of(mut value: impl FnMut(Family) -> Option<T>) -> Self {
        let v4 = value(Family::V4);
        Self { v4, v6: value(Family::V6) }
    }

    /// Returns the value for a family.
    pub fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Removes and returns the value for a family.
    pub fn take(&mut self, family: Family) -> Option<T> {
        match family {
            Family::V4 => self.v4.take(),
            Family::V6 => self.v6.take(),
        }
    }

    /// Returns the value of the first family that has one.
    pub fn first(&self) -> Option<&T> {
        self.iter().next()
    }

    /// Returns the values as references.
    pub fn as_ref(&self) -> PerFamily<&T> {
        PerFamily { v4: self.v4.as_ref(), v6: self.v6.as_ref() }
    }

    /// Returns the values in order.
    pub fn iter(&self) -> Chain<option::Iter<'_, T>, option::Iter<'_, T>> {
        self.v4.iter().chain(&self.v6)
    }

    /// Returns the families that have a value.
    pub fn families(&self) -> Vec<Family> {
        self.as_ref().map_with(|family, _| family).into_iter().collect()
    }

    /// Returns the number of families that have a value.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Returns true if no family has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the results of a function for the values.
    pub fn map<U>(self, mut of: impl FnMut(T) -> U) -> PerFamily<U> {
        self.map_with(|_, value| of(value))
    }

    /// Returns the results of a function for the families and their values.
    pub fn map_with<U>(self, mut of: impl FnMut(Family, T) -> U) -> PerFamily<U> {
        let v4 = self.v4.map(|value| of(Family::V4, value));
        PerFamily { v4, v6: self.v6.map(|value| of(Family::V6, value)) }
    }

    /// Returns the pairs of values of one family. A family without a value in both has none.
    pub fn zip<U>(self, other: PerFamily<U>) -> PerFamily<(T, U)> {
        PerFamily { v4: self.v4.zip(other.v4), v6: self.v6.zip(other.v6) }
    }

    /// Assigns the items of a list to the families that have a value here, in order, as the WIT
    /// does. Returns None if there are more or fewer of them.
    pub fn assign<U>(&self, list: impl IntoIterator<Item = U>) -> Option<PerFamily<U>> {
        let mut items = list.into_iter();
        let assigned = self.as_ref().map(|_| items.next());
        let is_complete = assigned.iter().all(Option::is_some) && items.next().is_none();
        is_complete.then(|| PerFamily { v4: assigned.v4.flatten(), v6: assigned.v6.flatten() })
    }
}

impl<T: PartialEq> PerFamily<T> {
    /// Returns true if one of the values is this one.
    pub fn contains(&self, value: &T) -> bool {
        self.iter().any(|own| own == value)
    }
}

impl<T> Default for PerFamily<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T> IntoIterator for PerFamily<T> {
    type Item = T;
    type IntoIter = Chain<option::IntoIter<T>, option::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.v4.into_iter().chain(self.v6)
    }
}

impl<'a, T> IntoIterator for &'a PerFamily<T> {
    type Item = &'a T;
    type IntoIter = Chain<option::Iter<'a, T>, option::Iter<'a, T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A value that belongs to one family.
pub trait InFamily {
    /// Returns the family.
    fn family(&self) -> Family;
}

impl InFamily for IpAddr {
    fn family(&self) -> Family {
        Family::of(*self)
    }
}

impl InFamily for IpNet {
    fn family(&self) -> Family {
        Family::of_network(*self)
    }
}

/// Sorts values by their family. The last one of a family counts.
impl<T: InFamily> FromIterator<T> for PerFamily<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut sorted = Self::NONE;
        for value in values {
            match value.family() {
                Family::V4 => sorted.v4 = Some(value),
                Family::V6 => sorted.v6 = Some(value),
            }
        }
        sorted
    }
}

impl<T: InFamily, const N: usize> From<[T; N]> for PerFamily<T> {
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V6_ONLY: PerFamily<u8> = PerFamily { v4: None, v6: Some(6) };
    const BOTH: PerFamily<u8> = PerFamily { v4: Some(4), v6: Some(6) };

    #[test]
    fn values_are_in_the_order_ipv4_ipv6() {
        assert!(BOTH.iter().eq(&[4, 6]) && BOTH.into_iter().eq([4, 6]));
        assert_eq!(BOTH.families(), [Family::V4, Family::V6]);
        assert_eq!((BOTH.first(), V6_ONLY.first()), (Some(&4), Some(&6)));
        assert_eq!((BOTH.len(), V6_ONLY.len(), PerFamily::<u8>::NONE.is_empty()), (2, 1, true));
    }

    #[test]
    fn pair_needs_a_value_of_its_family_on_both_sides() {
        assert_eq!(BOTH.zip(V6_ONLY), PerFamily { v4: None, v6: Some((6, 6)) });
        assert_eq!(V6_ONLY.zip(BOTH), PerFamily { v4: None, v6: Some((6, 6)) });
    }

    #[test]
    fn list_is_assigned_only_if_it_has_an_item_per_family() {
        assert_eq!(BOTH.assign(["a", "b"]), Some(PerFamily { v4: Some("a"), v6: Some("b") }));
        assert_eq!(V6_ONLY.assign(["b"]), Some(PerFamily { v4: None, v6: Some("b") }));
        assert_eq!((BOTH.assign(["a"]), V6_ONLY.assign(["a", "b"])), (None, None));
    }

    #[test]
    fn addresses_are_sorted_by_their_family() {
        let text = ["fd00::1", "192.0.2.1"];
        let found: PerFamily<IpAddr> = text.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(found.get(Family::V4).unwrap().to_string(), "192.0.2.1");
        assert_eq!(found.get(Family::V6).unwrap().to_string(), "fd00::1");
    }
}
