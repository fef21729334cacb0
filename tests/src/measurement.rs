//! Numbers beside their goals, as the benchmarks report them.

use std::path::{Path, PathBuf};

use heddle_lab::Storage;
use serde_json::{Value, json};

/// What is wanted of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
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

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub what: String,
    /// How much of it there was.
    pub value: f64,
    /// The value's unit; empty for a ratio.
    pub unit: &'static str,
    /// What is wanted, if anything is.
    pub goal: Option<Goal>,
}

impl Measurement {
    /// A number without a goal.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, goal: None }
    }

    /// The same, and not more than this is wanted.
    pub fn at_most(self, limit: f64) -> Self {
        Self { goal: Some(Goal::AtMost(limit)), ..self }
    }

    /// The same, and not less than this is wanted.
    pub fn at_least(self, limit: f64) -> Self {
        Self { goal: Some(Goal::AtLeast(limit)), ..self }
    }

    /// For a file.
    pub fn json(&self) -> Value {
        let goal = self.goal.map(|goal| {
            let (sign, limit) = goal.sign_and_limit();
            format!("{sign} {limit}")
        });
        let met = self.goal.map(|goal| goal.met(self.value));
        json!({"what": self.what, "value": self.value, "unit": self.unit, "goal": goal, "met": met})
    }
}

/// Prints a table, and where etcd had its data meanwhile: on a disk, it waits for that before each answer.
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

/// A number from the environment, for a long measurement. What is no number ends the process with a message, before
/// anything is made: nobody wants to find that out after an hour.
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

/// Where the benchmarks leave a file of this name: in `target/bench`, which is made.
///
/// # Panics
///
/// When it cannot be made.
pub fn result_file(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&directory).unwrap();
    directory.canonicalize().unwrap().join(name)
}

/// Writes one of the benchmarks' files and says where it is.
///
/// # Panics
///
/// When it cannot be written.
pub fn save(name: &str, contents: &str) {
    let file = result_file(name);
    std::fs::write(&file, contents).unwrap();
    println!("written to {}", file.display());
}

/// The value in the middle: the lower one of two.
///
/// # Panics
///
/// Without values.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of the values lies (nearest rank).
///
/// # Panics
///
/// Without values.
pub fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (part * values.len() as f64).ceil() as usize;
    values[rank.saturating_sub(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values = || vec![3.0, 1.0, 4.0, 2.0];
        assert_eq!(median(values()), 2.0);
        assert_eq!(quantile(values(), 0.0), 1.0);
        assert_eq!(quantile(values(), 0.75), 3.0);
        assert_eq!(quantile(values(), 1.0), 4.0);
    }

    #[test]
    fn a_goal_has_a_direction() {
        let half = Measurement::new("a ratio", 0.5, "");
        assert_eq!(half.clone().at_least(0.6).json()["met"], false);
        assert_eq!(half.clone().at_most(0.6).json()["met"], true);
        assert_eq!(half.clone().at_most(0.6).json()["goal"], "≤ 0.6");
        assert_eq!(half.json()["met"], Value::Null);
    }
}
