//! Does what it should, until more is put into its component than it was built with.

use heddle_hostile::{Malice, hostile};

/// No malice.
pub struct WellBehaved;

impl Malice for WellBehaved {}

hostile!(WellBehaved, name = "well-behaved");
