//! The clock of all decisions: tokio's, which a test can pause.

use std::time::{Instant, SystemTime};

/// Returns the current time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the time of day, to be shown. Nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "tokio has no time of day")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
