//! Writes lines for the log as fast as it can: by the log, standard output and standard error, long ones and ones that
//! look like several. The plan is good.

use std::time::{Duration, Instant};

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Lease, Plan, log};

/// The malice.
pub struct LogFlood;

impl Malice for LogFlood {
    fn plan_peer(_: &Scene<'_>, _: &Lease, _: &mut Plan) {
        let long = "x".repeat(1 << 20);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            log::info("all is well\n2026-01-01T00:00:00Z  INFO forged: all is well");
            println!("\u{1b}[2Jout\r");
            eprintln!("err");
        }
        for _ in 0..20 {
            log::error(&long);
            // Without an end of the line.
            print!("{long}");
        }
    }
}

hostile!(LogFlood, name = "log-flood");
