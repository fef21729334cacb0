//! Names of plugins.

use crate::text::plain;

/// Length limit of a plugin's name, in bytes.
const LONGEST: usize = 32;

/// A text that cannot be the name of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a plugin: expected 1 to {LONGEST} out of a–z, 0–9 and `-`")]
pub struct InvalidName(String);

/// Checks that a plugin may have this name.
///
/// # Errors
///
/// [`InvalidName`].
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match (1..=LONGEST).contains(&name.len()) && name.bytes().all(good) {
        true => Ok(()),
        false => Err(InvalidName(plain(name))),
    }
}
