//! A thread of its own.

use std::future::pending;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};

/// A thread that runs servers which anybody can reach. However many connections they get, the threads that keep the
/// network are scheduled beside them, not after them.
#[derive(Clone, Debug)]
pub struct Worker(Handle);

impl Worker {
    /// Starts the thread, which lives as long as the process.
    ///
    /// # Errors
    ///
    /// The system's, when there is no thread or no descriptor to be had.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(pending::<()>());
        })?;
        Ok(Self(handle))
    }

    /// Returns the handle of its runtime.
    pub(crate) fn handle(&self) -> &Handle {
        &self.0
    }
}
