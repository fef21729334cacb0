//! Records changes in a kernel as they happen, with `ip monitor`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::{Error, Namespace};

/// Time limit for a change to be reported, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Prefix of otherwise unused destinations (TEST-NET-2, RFC 5737), for changes that serve as
/// markers.
const MARKS: &str = "198.51.100.";

/// A running `ip monitor`.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    lines: Receiver<(Instant, String)>,
    marks: AtomicU8,
}

impl Monitor {
    /// Starts a monitor, which reports every change after this call.
    ///
    /// # Errors
    ///
    /// [`Error::Start`], or [`Error::Timeout`] if it reports nothing.
    pub fn start(namespace: &Namespace) -> Result<Self, Error> {
        let mut command = Command::new("ip");
        command.args(["-o", "monitor", "link", "address", "route", "neigh"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = namespace.spawn(command)?;
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The monitor may have been dropped.
                let _ = sender.send((Instant::now(), line));
            }
        });
        let monitor = Self { child, lines, marks: AtomicU8::new(0) };
        // `ip monitor` does not announce its subscription; a reported marker shows that it is
        // active.
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let mark = monitor.mark(namespace)?;
            let limit = Instant::now() + Duration::from_millis(100);
            if monitor.wait_line(limit, |line| line.contains(&mark)).is_some() {
                // `drain` filters out the remaining lines about markers.
                return Ok(monitor);
            }
        }
        Err(silent())
    }

    /// Makes and undoes a change that nobody else makes. Returns a text that occurs only in lines
    /// about it.
    fn mark(&self, namespace: &Namespace) -> Result<String, Error> {
        let number = self.marks.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{MARKS}{number}");
        namespace.ip(&format!("route add blackhole {mark} table 99"))?;
        namespace.ip(&format!("route del blackhole {mark} table 99"))?;
        Ok(format!("{mark} "))
    }

    /// Waits for a line, and returns it with its time of arrival. Discards earlier lines.
    pub fn wait_line(
        &self,
        until: Instant,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<(Instant, String)> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line.1) => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Returns all lines that have not been read yet.
    ///
    /// # Errors
    ///
    /// Those of `ip`; [`Error::Timeout`] if nothing is reported any more.
    pub fn drain(&self, namespace: &Namespace) -> Result<Vec<String>, Error> {
        // Changes are reported in order, so everything before the marker is complete.
        let mark = self.mark(namespace)?;
        let mut lines = Vec::new();
        let limit = Instant::now() + LIMIT;
        while let Some((_, line)) = self.wait_line(limit, |_| true) {
            if line.contains(&mark) {
                return Ok(lines);
            }
            if !line.contains(MARKS) {
                lines.push(line);
            }
        }
        Err(silent())
    }
}

fn silent() -> Error {
    let what = "`ip monitor` reporting a change".into();
    Error::Timeout { what, limit: LIMIT, seen: "nothing".into() }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have exited already; it is gone afterwards in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
