//! Threads that run until something else has ended.

use std::sync::atomic::{AtomicBool, Ordering};

/// Raises a flag when dropped, so that a thread that polls the flag also ends after a panic.
#[derive(Debug)]
pub struct RaisedOnDrop<'a>(pub &'a AtomicBool);

impl Drop for RaisedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
