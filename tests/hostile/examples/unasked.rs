//! Has a manifest that asks for nothing, and plans a device.

use heddle_hostile::{Hostile, Malice};

/// The malice.
pub struct Unasked;

impl Malice for Unasked {}

heddle_sdk::export_backend!(Hostile<Unasked>, name = "unasked");
