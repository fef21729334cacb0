//! Runs many seeds on all processors.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::world::run;

/// The longest that a seed may take, in real time. Most take some milliseconds. A node that spins without a call keeps the
/// simulated time from passing, and would never end.
const LIMIT: Duration = Duration::from_secs(120);

/// The result of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seeds that failed, with the expectation that did not hold.
    pub failures: Vec<(u64, String)>,
    /// The simulated time of all seeds.
    pub simulated: Duration,
}

/// Runs seeds, and calls `failed` with each that fails.
///
/// Ends the process if a seed spins, after its number was printed.
pub fn run_all(seeds: Range<u64>, failed: impl Fn(u64, &str) + Sync) -> Report {
    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report::default());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let running: Vec<Mutex<Option<(u64, Instant)>>> =
        (0..count).map(|_| Mutex::default()).collect();
    let work = |running: &Mutex<Option<(u64, Instant)>>| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let current = seeds.contains(&seed).then(|| (seed, Instant::now()));
            *running.lock().unwrap_or_else(PoisonError::into_inner) = current;
            if current.is_none() {
                return;
            }
            let outcome = run(seed, false);
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            report.simulated += outcome.simulated;
            if let Some(failure) = outcome.failure {
                failed(seed, &failure);
                report.failures.push((seed, failure));
            }
        }
    };
    let watch = || {
        loop {
            #[expect(clippy::disallowed_methods, reason = "a thread that watches the others")]
            std::thread::sleep(Duration::from_millis(100));
            let current =
                || running.iter().map(|it| *it.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some((seed, _)) = current().flatten().find(|(_, begun)| begun.elapsed() > LIMIT)
            {
                let spins = format!("a node spins: {LIMIT:?} of real time are over");
                let _ = writeln!(io::stderr(), "seed {seed}: {spins}");
                std::process::abort();
            }
            let is_over = next.load(Ordering::Relaxed) >= seeds.end;
            if is_over && current().flatten().next().is_none() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for running in &running {
            scope.spawn(move || work(running));
        }
        scope.spawn(watch);
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}
