//! Runs seeds: `heddle-sim [--seeds COUNT] [--from SEED]`, or replays one with its history: `heddle-sim --replay SEED`.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use tracing_subscriber::filter::LevelFilter;

const USAGE: &str = "usage: heddle-sim [--seeds COUNT] [--from SEED] | --replay SEED";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut from, mut count) = (0, 10_000);
    while let Some(flag) = arguments.next() {
        let Some(number) = arguments.next().and_then(|text| text.parse::<u64>().ok()) else {
            complain(&format!("{flag}: expected a number after it; {USAGE}"));
            return ExitCode::FAILURE;
        };
        match flag.as_str() {
            "--replay" => return replay(number),
            "--seeds" => count = number,
            "--from" => from = number,
            _ => {
                complain(&format!("{flag}: there is no such flag; {USAGE}"));
                return ExitCode::FAILURE;
            }
        }
    }
    let begun = Instant::now();
    let report = heddle_sim::run_all(from..from.saturating_add(count), |seed, failure| {
        print(&format!("seed {seed}: {failure}\n  replay it: heddle-sim --replay {seed}"));
    });
    print(&format!(
        "{count} seeds from {from}: {} failed; {} h simulated in {:.1} s",
        report.failures.len(),
        report.simulated.as_secs() / 3600,
        begun.elapsed().as_secs_f64()
    ));
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a line. A reader that has gone is no reason to stop: the exit code says the result.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn replay(seed: u64) -> ExitCode {
    tracing_subscriber::fmt().without_time().with_max_level(LevelFilter::INFO).init();
    let outcome = heddle_sim::run(seed, true);
    match outcome.failure {
        None => {
            print(&format!("seed {seed}: nothing failed"));
            ExitCode::SUCCESS
        }
        Some(failure) => {
            print(&format!("seed {seed}: {failure}"));
            ExitCode::FAILURE
        }
    }
}
