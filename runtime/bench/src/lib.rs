//! Micro-benchmarks of pure functions, each measured beside an alternative.
//!
//! criterion measures a function. Then the function and its alternative take turns, each for some
//! fifty microseconds at a time, and the ratio of their fastest turns is taken: whatever else runs
//! on the machine makes a turn slower, never faster.

#![expect(clippy::disallowed_macros, reason = "a program for measurements")]
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;

/// Length of a turn, unless one call takes longer.
const TURN: Duration = Duration::from_micros(50);

/// Time for the turns of both functions.
const TURNS: Duration = Duration::from_secs(1);

/// A series of comparisons. [`Comparisons::print`] ends it.
pub struct Comparisons {
    criterion: Criterion,
    rows: Vec<Row>,
}

/// The fastest turns, in seconds per call.
struct Row {
    name: &'static str,
    alternative: &'static str,
    own: f64,
    others: f64,
}

impl Comparisons {
    /// Begins a series. The command line is criterion's: a filter of names, `--measurement-time`
    /// and so on.
    pub fn from_arguments() -> Self {
        let criterion = Criterion::default()
            .without_plots()
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        Self { criterion, rows: Vec::new() }
    }

    /// Measures a function beside an alternative to it.
    pub fn compare<A, B>(
        &mut self,
        (name, mut function): (&'static str, impl FnMut() -> A),
        (alternative, mut other): (&'static str, impl FnMut() -> B),
    ) {
        let mut chosen = false;
        self.criterion.bench_function(name, |bencher| {
            chosen = true;
            bencher.iter(&mut function);
        });
        if !chosen {
            return;
        }
        let (count, other_count) = (calls_of_a_turn(&mut function), calls_of_a_turn(&mut other));
        let (mut own, mut others) = (f64::INFINITY, f64::INFINITY);
        let begun = Instant::now();
        while begun.elapsed() < TURNS {
            own = own.min(timed(count, &mut function).as_secs_f64() / f64::from(count));
            others =
                others.min(timed(other_count, &mut other).as_secs_f64() / f64::from(other_count));
        }
        self.rows.push(Row { name, alternative, own, others });
    }

    /// Prints all ratios.
    pub fn print(self) {
        println!("{:<44} {:>12} {:>12} {:>8}", "fastest turns", "this", "beside it", "ratio");
        for Row { name, alternative, own, others } in self.rows {
            let [this, beside] = [own, others].map(|seconds| format!("{:.3} µs", seconds * 1e6));
            println!("{name:<44} {this:>12} {beside:>12} {:>8.2}  {alternative}", others / own);
        }
    }
}

/// Returns the time of this many calls.
fn timed<T>(count: u32, function: &mut impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..count {
        black_box(function());
    }
    begun.elapsed()
}

/// Returns how many calls take a turn's time.
fn calls_of_a_turn<T>(function: &mut impl FnMut() -> T) -> u32 {
    let mut count = 1;
    while timed(count, function) < TURN {
        count *= 2;
    }
    count
}
