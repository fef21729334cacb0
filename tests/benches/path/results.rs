//! The measurements, and the numbers derived from them.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_tests::measurement::{Measurement, median};
use serde_json::{Value, json};

use crate::load::{Load, Received};
use crate::machine::Machine;
use crate::variant::Variant;

/// Formats a number with three significant digits.
pub(crate) fn digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One run of iperf3.
pub(crate) struct Sample {
    pub(crate) received: Received,
    /// CPU time in seconds that all cores were busy: sender, receiver, and everything between.
    pub(crate) cpu: f64,
}

impl Sample {
    /// Returns the rate in the load's rate unit.
    pub(crate) fn rate(&self) -> f64 {
        self.received.rate
    }

    /// Returns the cost in the load's cost unit.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu / self.received.amount
    }
}

/// All results of a run.
pub(crate) struct Results {
    pub(crate) machine: Machine,
    duration: Duration,
    /// Number of cores busy in each round while nothing was measured.
    idle: Vec<f64>,
    /// Samples, one per round.
    samples: BTreeMap<(Load, Variant), Vec<Sample>>,
}

impl Results {
    pub(crate) fn new(machine: Machine, duration: Duration) -> Self {
        Self { machine, duration, idle: Vec::new(), samples: BTreeMap::new() }
    }

    /// Records the idle load of a new round.
    pub(crate) fn add_idle(&mut self, cores: f64) {
        self.idle.push(cores);
    }

    /// Records a sample of the current round.
    pub(crate) fn add(&mut self, variant: Variant, load: Load, sample: Sample) {
        self.samples.entry((load, variant)).or_default().push(sample);
    }

    /// Describes the method: number of rounds, and length of each measurement.
    pub(crate) fn method(&self) -> String {
        format!("medians of {} rounds, {} s each", self.idle.len(), self.duration.as_secs())
    }

    /// Returns the variants that were measured.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        let measured = |variant: &Variant| self.samples.keys().any(|(_, v)| v == variant);
        Variant::ALL.into_iter().filter(measured).collect()
    }

    /// Returns the median over the rounds, if the variant was measured.
    pub(crate) fn median(
        &self,
        load: Load,
        variant: Variant,
        quantity: impl Fn(&Sample) -> f64,
    ) -> Option<f64> {
        let samples = self.samples.get(&(load, variant))?;
        Some(median(samples.iter().map(quantity).collect()))
    }

    /// Returns one variant's quantity divided by another's, for each round, if both were measured.
    pub(crate) fn ratios(
        &self,
        load: Load,
        variant: Variant,
        base: Variant,
        quantity: impl Fn(&Sample) -> f64,
    ) -> Option<Vec<f64>> {
        let (samples, base) =
            (self.samples.get(&(load, variant))?, self.samples.get(&(load, base))?);
        Some(samples.iter().zip(base).map(|(a, b)| quantity(a) / quantity(b)).collect())
    }

    /// Returns the udp backend's goals and how far they are met.
    pub(crate) fn goals(&self) -> Vec<Measurement> {
        let wanted = [
            (Load::Stream, Variant::Vxlan, 0.5),
            (Load::Stream, Variant::Native, 0.97),
            (Load::Stream, Variant::Naive, 6.0),
            (Load::SmallPackets, Variant::Naive, 1.3),
        ];
        let measurement = |(load, base, goal): (Load, Variant, f64)| {
            let ratio = median(self.ratios(load, Variant::Udp, base, Sample::rate)?);
            let what = format!("{}: udp ÷ {}", load.name(), base.name());
            Some(Measurement::new(what, ratio, "").at_least(goal))
        };
        wanted.into_iter().filter_map(measurement).collect()
    }

    /// Prints all medians as Markdown.
    pub(crate) fn print(&self) {
        println!("\n{}; {}; ratios are to kernel VXLAN\n", self.machine, self.method());
        self.print_table("received", Load::rate_unit, Sample::rate);
        self.print_table("CPU time of the whole machine", Load::cost_unit, Sample::cost);
        println!(
            "Busy cores while nothing is measured, which is in the CPU time: {:.2}",
            self.idle()
        );
    }

    fn print_table(
        &self,
        what: &str,
        unit: fn(Load) -> &'static str,
        quantity: fn(&Sample) -> f64,
    ) {
        let row = |first: &str, cells: [String; 4]| {
            let cells = cells.map(|cell| format!(" {cell:<28} |"));
            println!("| {first:<33} |{}", cells.concat());
        };
        row(what, Load::ALL.map(|load| load.name().into()));
        row("---", ["---"; 4].map(String::from));
        for variant in self.variants() {
            let cell = |load: Load| {
                let value = self.median(load, variant, quantity);
                let value = value.map(|value| format!("{} {}", digits(value), unit(load)));
                let ratios = self.ratios(load, variant, Variant::Vxlan, quantity);
                let ratio = ratios.map(|ratios| format!("{} ×", digits(median(ratios))));
                [ratio, value].into_iter().flatten().collect::<Vec<_>>().join(", ")
            };
            row(variant.label(), Load::ALL.map(cell));
        }
        println!();
    }

    /// Returns the median number of cores busy while nothing is measured.
    fn idle(&self) -> f64 {
        median(self.idle.clone())
    }

    /// Returns all results as JSON.
    pub(crate) fn json(&self) -> Value {
        let Machine { processor, cores, kernel, date } = &self.machine;
        let samples = self.samples.iter().map(|(&(load, variant), samples)| {
            let rounds: Vec<_> = samples
                .iter()
                .map(|sample| json!({"rate": sample.rate(), "cost": sample.cost()}))
                .collect();
            json!({
                "load": load.name(),
                "iperf3": load.arguments(),
                "variant": variant.name(),
                "rate_unit": load.rate_unit(),
                "cost_unit": load.cost_unit(),
                "rounds": rounds,
            })
        });
        json!({
            "machine": {"processor": processor, "cores": cores, "kernel": kernel},
            "date": date,
            "seconds": self.duration.as_secs(),
            "idle_cores": self.idle(),
            "measured": samples.collect::<Vec<_>>(),
            "goals": self.goals().iter().map(Measurement::json).collect::<Vec<_>>(),
        })
    }
}
