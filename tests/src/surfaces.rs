//! The places where an operator sees the health of a node.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use heddle_lab::{Error, wait_until};

use crate::{Browser, Cluster, Node, heddle};

/// Flags of a node whose surfaces are watched: a status page, and probes of its peers.
pub const WATCHED: [&str; 2] = ["--status-address=9981", "--probe-interval=1"];

const PAGE: &str = "http://127.0.0.1:9981/";
const METRICS: &str = "http://127.0.0.1:9981/metrics";

/// Text of the page's badge on a healthy node.
const HEALTHY: &str = "✓ ready";

/// A place where an operator sees the health of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surface {
    /// Findings of `heddle doctor`.
    Doctor,
    /// Exit code of `heddle status --check`.
    Status,
    /// `/readyz`: its code, conditions and warnings.
    Readyz,
    /// Metrics with a value that the shipped alerts fire at, or that counts a failure.
    Metrics,
    /// Badge of the status page, in a browser.
    Page,
}

impl Surface {
    /// All surfaces.
    pub const ALL: [Self; 5] =
        [Self::Doctor, Self::Status, Self::Readyz, Self::Metrics, Self::Page];
}

/// Reports of the surfaces about a node. Surfaces that report nothing are absent.
pub type Reports = BTreeMap<Surface, String>;

/// The surfaces of one node, which was started with the flags [`WATCHED`].
#[derive(Debug)]
pub struct Surfaces {
    browser: Browser,
    doctor: Vec<String>,
}

impl Surfaces {
    /// Opens the node's page, and prepares to ask the others.
    pub fn of(cluster: &Cluster, node: &Node) -> Self {
        let mut browser = Browser::start(&node.host, 1280, 1024);
        browser.open(PAGE);
        let flags = cluster.heddled(&node.host);
        let flags = flags.get_args().map(|flag| flag.to_str().unwrap().to_owned());
        let mut doctor = vec!["doctor".to_owned()];
        doctor.extend(flags);
        doctor.extend(WATCHED.map(str::to_owned));
        // That of a Heddle which may be installed on this machine is not meant.
        doctor.push("--environment-file=-/no/such/file".to_owned());
        Self { browser, doctor }
    }

    /// Returns what each surface reports now.
    pub fn look(&mut self, node: &mut Node) -> Reports {
        let found = [
            (Surface::Doctor, self.doctor(node)),
            (Surface::Status, status(node)),
            (Surface::Readyz, readyz(node)),
            (Surface::Metrics, metrics(node)),
            (Surface::Page, self.page()),
        ];
        found.into_iter().filter_map(|(surface, report)| Some((surface, report?))).collect()
    }

    /// Waits until each of these surfaces reports something that contains its text, and returns the
    /// time until each did.
    ///
    /// # Panics
    ///
    /// If one does not within `limit`.
    pub fn wait_for(
        &mut self,
        node: &mut Node,
        wanted: &[(Surface, &str)],
        limit: Duration,
    ) -> BTreeMap<Surface, Duration> {
        let began = Instant::now();
        let mut seen = BTreeMap::new();
        wait_until(format!("{wanted:?} on {}", node.host.name()), limit, || {
            let reports = self.look(node);
            for (surface, text) in wanted {
                if reports.get(surface).is_some_and(|report| report.contains(text)) {
                    seen.entry(*surface).or_insert_with(|| began.elapsed());
                }
            }
            if seen.len() == wanted.len() { Ok(()) } else { Err(format!("{reports:#?}")) }
        })
        .unwrap();
        seen
    }

    /// Waits until no surface reports anything.
    ///
    /// # Panics
    ///
    /// If one still does after `limit`.
    pub fn wait_quiet(&mut self, node: &mut Node, limit: Duration) {
        wait_until(format!("no report about {}", node.host.name()), limit, || {
            let reports = self.look(node);
            if reports.is_empty() { Ok(()) } else { Err(format!("{reports:#?}")) }
        })
        .unwrap();
    }

    fn doctor(&self, node: &Node) -> Option<String> {
        let mut command = Command::new(heddle());
        command.args(&self.doctor);
        run(node, command)
    }

    fn page(&mut self) -> Option<String> {
        // The conditions and warnings are listed below the badge.
        let badge = self.browser.evaluate("byId('ready').innerText");
        let conditions = self.browser.evaluate("byId('conditions').innerText");
        let text = format!("{}\n{}", badge.as_str().unwrap(), conditions.as_str().unwrap());
        (badge != HEALTHY).then_some(text)
    }
}

/// Returns what a command prints on the node's host. None if it prints nothing and succeeds.
fn run(node: &Node, command: Command) -> Option<String> {
    match node.host.namespace().run(command) {
        Ok(printed) => (!printed.is_empty()).then_some(printed),
        Err(Error::Failed { status, stderr, .. }) => Some(format!("{status}: {stderr}")),
        Err(error) => panic!("{error}"),
    }
}

fn status(node: &Node) -> Option<String> {
    let mut command = Command::new(heddle());
    command.args(["status", "--check", "--socket"]).arg(node.host.control_socket());
    match node.host.namespace().run(command) {
        Ok(_) => None,
        Err(Error::Failed { status, stderr, .. }) => Some(format!("{status}: {stderr}")),
        Err(error) => panic!("{error}"),
    }
}

fn readyz(node: &mut Node) -> Option<String> {
    match node.daemon().health("/readyz") {
        Ok((200, body)) if body == "ok\n" => None,
        Ok((code, body)) => Some(format!("{code} {body}")),
        Err(error) => Some(error.to_string()),
    }
}

/// Returns the series whose value means a problem.
fn metrics(node: &mut Node) -> Option<String> {
    let text = match node.daemon().health_at(METRICS) {
        Ok((200, text)) => text,
        Ok((code, body)) => return Some(format!("{code} {body}")),
        Err(error) => return Some(error.to_string()),
    };
    let bad: Vec<_> = text.lines().filter(|line| is_problem(line)).collect();
    (!bad.is_empty()).then(|| bad.join("\n"))
}

fn is_problem(line: &str) -> bool {
    /// Series that are 1 on a healthy node.
    const ONE: [&str; 2] = ["heddle_ready", "heddle_condition_met"];
    /// Series that are 0 on a healthy node.
    const ZERO: [&str; 8] = [
        "heddle_config_superseded",
        "heddle_watch_stale",
        "heddle_plugin_failures_total",
        "heddle_plugin_refusals_total",
        "heddle_peers_unreachable",
        "heddle_peers_faulty",
        "heddle_records_rejected",
        "heddle_lease_conflicts",
    ];
    let Some((series, value)) = line.rsplit_once(' ') else { return false };
    let name = series.split('{').next().unwrap_or(series);
    let is_refused = series == r#"heddle_kernel_changes_total{change="refused"}"#;
    match value.parse::<f64>() {
        _ if line.starts_with('#') => false,
        Ok(value) if ONE.contains(&name) => value != 1.0,
        Ok(value) if ZERO.contains(&name) || is_refused => value != 0.0,
        _ => false,
    }
}
