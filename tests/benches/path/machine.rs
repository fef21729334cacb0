//! The machine that the measurements run on, and its load.

use std::process::Command;
use std::time::{Duration, Instant};

use heddle_lab::run;

/// Description of the machine, for readers of the results.
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// The day of the run, UTC.
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processor: model.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: printed("uname", "-r"),
            date: printed("date", "-u +%F"),
        }
    }
}

/// Formats the description as one line.
impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, kernel, date } = self;
        let s = if *cores == 1 { "" } else { "s" };
        write!(f, "{processor}, {cores} core{s} · Linux {kernel} · {date}")
    }
}

fn printed(program: &str, arguments: &str) -> String {
    run(Command::new(program).args(arguments.split(' '))).unwrap().trim().to_owned()
}

/// Runs `work` and returns the CPU time that all cores were busy meanwhile, with any process.
pub(crate) fn busy_during<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let before = busy();
    let result = work();
    (busy() - before, result)
}

/// Returns the number of cores that are busy while nothing is measured.
pub(crate) fn idle_load() -> f64 {
    let start = Instant::now();
    let (busy, ()) = busy_during(|| std::thread::sleep(Duration::from_secs(2)));
    busy.as_secs_f64() / start.elapsed().as_secs_f64()
}

/// Returns the CPU time since boot (`/proc/stat`, proc(5)): user, nice, system, irq and softirq of
/// all cores. Time stolen by the hypervisor is not counted.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let all_cores = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let ticks: Vec<u64> =
        all_cores.unwrap().split_whitespace().map(|ticks| ticks.parse().unwrap()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        panic!("/proc/stat: too few numbers");
    };
    // A tick is 10 ms on all architectures with release binaries.
    Duration::from_millis(10 * (user + nice + system + irq + softirq))
}
