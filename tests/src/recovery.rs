//! How long it takes from a fault until all is as it should be.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use heddle_lab::wait_until;

/// A clock that runs from a fault to the recovery from it.
///
/// What it measures is printed as `recovered: row 1: 0.12 s (what it was)`, and added as a line to
/// `target/recovery.tsv`: the name of the fault, what it was, the seconds.
#[derive(Debug)]
pub struct Recovery {
    fault: String,
    since: Instant,
}

impl Recovery {
    /// Starts the clock. The fault's name is as in `docs/reliability.md`.
    pub fn from(fault: &str) -> Self {
        Self { fault: fault.to_owned(), since: Instant::now() }
    }

    /// Waits until something holds again, and takes the time. It is as exact as a look at it is quick.
    pub fn wait<T, E: ToString>(
        self,
        what: &str,
        limit: Duration,
        probe: impl FnMut() -> Result<T, E>,
    ) -> T {
        let found = wait_until(format!("{}: {what}", self.fault), limit, probe).unwrap();
        self.done(what);
        found
    }

    /// Takes the time.
    pub fn done(self, what: &str) {
        note(&self.fault, what, self.since.elapsed());
    }
}

/// The same for a time that was taken otherwise. `row` is one of `docs/reliability.md`, and may say which of its faults.
pub fn recovered(row: &str, time: Duration) {
    note(&format!("row {row}"), "as it should be", time);
}

fn note(fault: &str, what: &str, time: Duration) {
    let seconds = time.as_secs_f64();
    let line = format!("recovered: {fault}: {seconds:.2} s ({what})\n");
    // Past the test harness, which swallows what `println!` writes.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/recovery.tsv");
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    // In one piece: tests of several processes write to it.
    file.write_all(format!("{fault}\t{what}\t{seconds:.3}\n").as_bytes()).unwrap();
}
