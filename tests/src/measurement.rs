//! Measured numbers and their goals, as the benchmarks report them.

use std::path::{Path, PathBuf};

use heddle_lab::Storage;
use serde_json::{Value, json};

/// Goal for a measured number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Upper limit.
    AtMost(f64),
    /// Lower limit.
    AtLeast(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn sign_and_limit(self) -> (char, f64) {
        match self {
            Self::AtMost(limit) => ('≤', limit),
            Self::AtLeast(limit) => ('≥', limit),
        }
    }
}

/// One measured number.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Name of the measured quantity.
    pub what: String,
    /// Measured value.
    pub value: f64,
    /// The value's unit; empty for a ratio.
    pub unit: &'static str,
    /// Goal, if there is one.
    pub goal: Option<Goal>,
}

impl Measurement {
    /// Creates a measurement without a goal.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, goal: None }
    }

    /// Sets an upper limit as the goal.
    pub fn at_most(self, limit: f64) -> Self {
        Self { goal: Some(Goal::AtMost(limit)), ..self }
    }

    /// Sets a lower limit as the goal.
    pub fn at_least(self, limit: f64) -> Self {
        Self { goal: Some(Goal::AtLeast(limit)), ..self }
    }

    /// Returns the measurement as JSON, for a result file.
    pub fn json(&self) -> Value {
        let goal = self.goal.map(|goal| {
            let (sign, limit) = goal.sign_and_limit();
            format!("{sign} {limit}")
        });
        let met = self.goal.map(|goal| goal.met(self.value));
        json!({"what": self.what, "value": self.value, "unit": self.unit, "goal": goal, "met": met})
    }
}

/// Prints a table, and the storage that etcd's data was on: on a disk, etcd waits for it before
/// each answer.
pub fn print(measurements: &[Measurement]) {
    println!("\nlabs' files, etcd's data among them: {}", Storage::now());
    println!("\n{:<44} {:>10} {:<4} {:>8}", "", "measured", "", "goal");
    for Measurement { what, value, unit, goal } in measurements {
        let goal = goal.map_or_else(String::new, |goal| {
            let (sign, limit) = goal.sign_and_limit();
            format!("{sign} {limit:<6} {}", if goal.met(*value) { "met" } else { "missed" })
        });
        println!("{what:<44} {value:>10.2} {unit:<4} {goal}");
    }
}

/// Reads a number for a long measurement from the environment. An invalid number ends the process
/// with a message before anything is set up, rather than after an hour.
pub fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => {
            eprintln!("{name} is `{text}`: expected a whole number");
            std::process::exit(2)
        }
    }
}

/// Returns the path of a result file with this name in `target/bench`, creating the directory.
///
/// # Panics
///
/// If the directory cannot be created.
pub fn result_file(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&directory).unwrap();
    directory.canonicalize().unwrap().join(name)
}

/// Writes a result file and prints its path.
///
/// # Panics
///
/// If the file cannot be written.
pub fn save(name: &str, contents: &str) {
    let file = result_file(name);
    std::fs::write(&file, contents).unwrap();
    println!("written to {}", file.display());
}

/// Returns the median: of an even number of values, the lower one in the middle.
///
/// # Panics
///
/// Without values.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// Returns the value below which this fraction of the values lies (nearest rank).
///
/// # Panics
///
/// Without values.
pub fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 0 to the number of values"
    )]
    let rank = (part * values.len() as f64).ceil() as usize;
    values[rank.saturating_sub(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_one_of_the_values() {
        let values = || vec![3.0, 1.0, 4.0, 2.0];
        assert_eq!(median(values()), 2.0);
        assert_eq!(quantile(values(), 0.0), 1.0);
        assert_eq!(quantile(values(), 0.75), 3.0);
        assert_eq!(quantile(values(), 1.0), 4.0);
    }

    #[test]
    fn goal_is_upper_or_lower_limit() {
        let half = Measurement::new("a ratio", 0.5, "");
        assert_eq!(half.clone().at_least(0.6).json()["met"], false);
        assert_eq!(half.clone().at_most(0.6).json()["met"], true);
        assert_eq!(half.clone().at_most(0.6).json()["goal"], "≤ 0.6");
        assert_eq!(half.json()["met"], Value::Null);
    }
}
