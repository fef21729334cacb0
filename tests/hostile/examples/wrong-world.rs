//! Says that it steers packets, and has no function for that.

use heddle_hostile::{Malice, hostile_with_manifest};

/// The malice.
pub struct WrongWorld;

impl Malice for WrongWorld {}

hostile_with_manifest!(
    WrongWorld,
    r#"{"name":"wrong-world","version":"0.1.0","wit":"0.1.0","world":"packet-backend-plugin"}"#
);
