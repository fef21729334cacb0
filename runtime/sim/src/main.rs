//! Runs seeds: `heddle-sim [--seeds COUNT] [--from SEED]`, or replays one with its history: `heddle-sim --replay SEED`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--replay") {
        tracing_subscriber::fmt()
            .without_time()
            .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
            .init();
        let outcome = heddle_sim::run(seed, true);
        println!("seed {seed}: {outcome:?}");
        return if outcome.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if arguments
        .iter()
        .any(|argument| !argument.starts_with("--") && argument.parse::<u64>().is_err())
    {
        eprintln!("usage: heddle-sim [--seeds COUNT] [--from SEED] | --replay SEED");
        return ExitCode::FAILURE;
    }
    let (from, count) = (number("--from").unwrap_or(0), number("--seeds").unwrap_or(10_000));
    let failures = run_all(from, count);
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(from: u64, count: u64) -> Vec<(u64, String)> {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let failures = Mutex::new(Vec::new());
    let simulated = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return;
            }
            let outcome = heddle_sim::run(seed, false);
            simulated.fetch_add(outcome.simulated.as_secs(), Ordering::Relaxed);
            if let Some(failure) = outcome.failure {
                println!("seed {seed}: {failure}");
                println!("  replay it: heddle-sim --replay {seed}");
                failures.lock().expect("nobody panicked").push((seed, failure));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("nobody panicked");
    let simulated = Duration::from_secs(simulated.into_inner());
    println!(
        "{count} seeds from {from}: {} failed; {} h simulated in {:.1} s",
        failures.len(),
        simulated.as_secs() / 3600,
        begun.elapsed().as_secs_f64()
    );
    failures
}
