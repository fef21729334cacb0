//! The clock that all decisions follow: tokio's, which a test can pause.

use std::time::Instant;

/// Returns the time now.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
