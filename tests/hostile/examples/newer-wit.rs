//! Declares a newer interface version than the host has, and a world that the host does not know.

use heddle_hostile::{Malice, hostile_with_manifest};

/// The hostile plugin.
pub struct NewerWit;

impl Malice for NewerWit {}

hostile_with_manifest!(
    NewerWit,
    r#"{"name":"newer-wit","version":"0.1.0","wit":"0.2.0","world":"backend-plugin-with-a-shell"}"#
);
