//! Benchmark of packet throughput between containers on two hosts: through the udp backend, whose
//! plugin steers every packet, and through the alternatives to compare it with. Prints a table,
//! writes `target/bench/path.json`, and draws `target/bench/packet-path.svg`.
//!
//! No result makes it fail, because absolute numbers depend on the machine, whose speed may change
//! between two minutes. Each round therefore measures all variants, ratios are taken within a
//! round, and the reported value is the median over the rounds.
//!
//! - `HEDDLE_BENCH_ROUNDS`: number of rounds, 21 by default. Many short rounds, because single
//!   measurements vary widely.
//! - `HEDDLE_BENCH_SECONDS`: length of each measurement in seconds, 1 by default. A round has 24.
//! - Arguments choose variants: `cargo bench --bench path -- vxlan udp`.
//!
//! Needs the tools and programs that `make bench` installs and builds.

mod load;
mod machine;
mod pair;
mod plot;
mod results;
mod variant;

use std::time::Duration;

use heddle_tests::measurement;

use crate::load::Load;
use crate::machine::Machine;
use crate::pair::Pair;
use crate::results::Results;
use crate::variant::Variant;

fn main() {
    let rounds = usize::try_from(setting("HEDDLE_BENCH_ROUNDS", 21)).unwrap();
    let duration = Duration::from_secs(setting("HEDDLE_BENCH_SECONDS", 1));
    let pairs: Vec<_> = chosen_variants().into_iter().map(Pair::new).collect();

    let mut results = Results::new(Machine::read(), duration);
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        results.add_idle(machine::idle_load());
        for load in Load::ALL {
            // Rotate the order: the first variant of a round comes last in the next.
            let turn = |i| (i + round) % pairs.len();
            for pair in (0..pairs.len()).map(|i| &pairs[turn(i)]) {
                results.add(pair.variant, load, pair.measure(load, duration));
            }
        }
    }

    results.print();
    measurement::print(&results.goals());
    println!();
    measurement::save("path.json", &format!("{:#}\n", results.json()));
    measurement::save("packet-path.svg", &plot::draw(&results));
}

/// Reads a whole number of at least 1 from the environment.
fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    let number = text.parse().ok().filter(|&number| number > 0);
    number.unwrap_or_else(|| panic!("{name}={text}: a whole number from 1 on is expected"))
}

/// Returns the variants named by the arguments, or all. Cargo passes `--bench`, which is skipped.
fn chosen_variants() -> Vec<Variant> {
    let named: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for name in &named {
        let known = Variant::ALL.map(Variant::name);
        assert!(known.contains(&name.as_str()), "{name}: one of {} is expected", known.join(", "));
    }
    let chosen = |variant: &Variant| named.is_empty() || named.iter().any(|n| n == variant.name());
    Variant::ALL.into_iter().filter(chosen).collect()
}
