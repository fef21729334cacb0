//! Claims to be another plugin, to get the grants of that one.

use heddle_hostile::{Malice, hostile};

/// The hostile plugin.
pub struct Impostor;

impl Malice for Impostor {}

hostile!(Impostor, name = "vxlan");
