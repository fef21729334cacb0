//! Writes log lines as fast as it can: through the log function, standard output and standard
//! error; long ones, and ones that imitate several lines. The plan is good.

use std::time::{Duration, Instant};

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Lease, Plan, log};

/// The hostile plugin.
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
            // Without a line ending.
            print!("{long}");
        }
    }
}

hostile!(LogFlood, name = "log-flood");
