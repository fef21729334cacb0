//! How long it took until a fault was made up for.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Says how long it took from the end of a fault until everything was as it should be: in the test's output, and in
/// `target/recovery.tsv`, which all runs add to. `row` is one of `docs/reliability.md`, and may say which of its faults.
pub fn recovered(row: &str, time: Duration) {
    let seconds = time.as_secs_f64();
    println!("recovered: row {row}: {seconds:.2} s");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/recovery.tsv");
    let line = format!("{row}\t{seconds:.3}\n");
    let add = |mut file: File| file.write_all(line.as_bytes());
    File::options().create(true).append(true).open(&path).and_then(add).unwrap();
}
