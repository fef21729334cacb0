//! Declares the world of packet backends, but exports no function that steers packets.

use heddle_hostile::{Malice, hostile_with_manifest};

/// The hostile plugin.
pub struct WrongWorld;

impl Malice for WrongWorld {}

hostile_with_manifest!(
    WrongWorld,
    r#"{"name":"wrong-world","version":"0.1.0","wit":"0.1.0","world":"packet-backend-plugin"}"#
);
