//! Was made for an interface that this host does not have yet, and says so at length.

use heddle_hostile::{Malice, hostile_with_manifest};

/// The malice.
pub struct NewerWit;

impl Malice for NewerWit {}

hostile_with_manifest!(
    NewerWit,
    r#"{"name":"newer-wit","version":"0.1.0","wit":"0.2.0","world":"backend-plugin-with-a-shell"}"#
);
