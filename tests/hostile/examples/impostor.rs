//! Says that it is another plugin, to be granted what that one is.

use heddle_hostile::{Malice, hostile};

/// The malice.
pub struct Impostor;

impl Malice for Impostor {}

hostile!(Impostor, name = "vxlan");
