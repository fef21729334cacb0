//! Plans a device that its manifest, which asks for nothing, does not mention.

use heddle_hostile::{Hostile, Malice};

/// The hostile plugin.
pub struct Unasked;

impl Malice for Unasked {}

heddle_sdk::export_backend!(Hostile<Unasked>, name = "unasked");
