//! The history of a run: printed if asked for, and always hashed, so that two runs of a seed can be compared.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The history of a run. Clones are the same.
#[derive(Clone)]
pub struct Trace {
    shared: Arc<Mutex<Shared>>,
    begun: Instant,
    print: bool,
}

struct Shared {
    hasher: DefaultHasher,
    lines: u64,
}

impl Trace {
    /// Begins a history. Prints each line to standard output if `print` is true.
    pub fn new(print: bool) -> Self {
        let shared = Shared { hasher: DefaultHasher::new(), lines: 0 };
        Self { shared: Arc::new(Mutex::new(shared)), begun: Instant::now(), print }
    }

    /// Returns the simulated time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Adds a line about an actor.
    pub fn note(&self, actor: &str, text: &str) {
        let at = self.elapsed();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (at, actor, text).hash(&mut shared.hasher);
        shared.lines += 1;
        if self.print {
            // Whoever reads the history may have seen enough.
            let _ = writeln!(io::stdout(), "{:>9.3} {actor}: {text}", at.as_secs_f64());
        }
    }

    /// Returns a hash of all lines, and their number.
    pub fn digest(&self) -> (u64, u64) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (shared.hasher.finish(), shared.lines)
    }
}
