//! Ten thousand histories, and proof that each of them can be replayed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs seeds on all processors. Returns the failures.
fn run(seeds: std::ops::Range<u64>) -> Vec<String> {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            if let Some(failure) = heddle_sim::run(seed, false).failure {
                let replay =
                    format!("replay it: cargo run --release -p heddle-sim -- --replay {seed}");
                failures.lock().unwrap().push(format!("seed {seed}: {failure}; {replay}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap()
}

/// An unoptimised build is some twenty times slower, and runs fewer.
const SEEDS: u64 = if cfg!(debug_assertions) { 300 } else { 10_000 };

#[test]
fn nodes_recover_from_every_history() {
    assert_eq!(run(0..SEEDS), Vec::<String>::new());
}

#[test]
fn seed_replays_exactly() {
    for seed in 0..50 {
        let (one, other) = (heddle_sim::run(seed, false), heddle_sim::run(seed, false));
        assert!(one.digest.1 > 2, "seed {seed} has no history");
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
    assert_ne!(heddle_sim::run(1, false).digest, heddle_sim::run(2, false).digest);
}
