//! Time from a fault to full recovery.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use heddle_lab::wait_until;

/// A clock that runs from a fault to the recovery from it.
///
/// Each measurement is printed as `recovered: row 1: 0.12 s (what it was)`, and appended to
/// `target/recovery.tsv` as a line with the fault's name, the condition and the seconds.
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

    /// Waits until a condition holds again, and records the time. The resolution is the duration of
    /// one probe.
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

    /// Records the time.
    pub fn done(self, what: &str) {
        note(&self.fault, what, self.since.elapsed());
    }
}

/// Records a time that the caller measured. `row` is one of `docs/reliability.md`, optionally with
/// the fault.
pub fn recovered(row: &str, time: Duration) {
    note(&format!("row {row}"), "as it should be", time);
}

fn note(fault: &str, what: &str, time: Duration) {
    let seconds = time.as_secs_f64();
    let line = format!("recovered: {fault}: {seconds:.2} s ({what})\n");
    // Write to stderr directly: the test harness captures `println!`.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/recovery.tsv");
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    // In one write, because tests of several processes append to the file.
    file.write_all(format!("{fault}\t{what}\t{seconds:.3}\n").as_bytes()).unwrap();
}
