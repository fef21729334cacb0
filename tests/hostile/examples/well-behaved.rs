//! Behaves well, until more is put into its component than it was built with.

use heddle_hostile::{Malice, hostile};

/// A plugin without any misbehaviour of its own.
pub struct WellBehaved;

impl Malice for WellBehaved {}

hostile!(WellBehaved, name = "well-behaved");
