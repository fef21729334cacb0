//! Threads that go on until something else has ended.

use std::sync::atomic::{AtomicBool, Ordering};

/// Raises a flag when it is dropped: a thread that goes on until then ends after a panic as well.
#[derive(Debug)]
pub struct RaisedOnDrop<'a>(pub &'a AtomicBool);

impl Drop for RaisedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
