//! Has a manifest of 1 MiB, which the host might log, and has to compare with each name.

use heddle_hostile::{Malice, hostile_with_manifest};

/// The hostile plugin.
pub struct HugeManifest;

impl Malice for HugeManifest {}

const BEFORE: &str = r#"{"name":"huge-manifest","version":"1.0.0-"#;
const AFTER: &str = r#"","wit":"0.1.0","world":"backend-plugin"}"#;

#[allow(clippy::large_const_arrays, reason = "it is used once, and only for the section")]
const BYTES: [u8; 1 << 20] = {
    let mut bytes = [b'a'; 1 << 20];
    let mut index = 0;
    while index < BEFORE.len() {
        bytes[index] = BEFORE.as_bytes()[index];
        index += 1;
    }
    index = 0;
    while index < AFTER.len() {
        bytes[(1 << 20) - AFTER.len() + index] = AFTER.as_bytes()[index];
        index += 1;
    }
    bytes
};

hostile_with_manifest!(
    HugeManifest,
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
);
