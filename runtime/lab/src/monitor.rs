//! What changes in a kernel, as it changes: `ip monitor`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::{Error, Namespace};

/// A destination that nothing else uses (TEST-NET-2, RFC 5737), for a change that is recognized.
const MARK: &str = "198.51.100.1";

/// A running `ip monitor`.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Monitor {
    /// Starts one. Every change after this call is seen.
    ///
    /// # Errors
    ///
    /// [`Error::Start`], or [`Error::Timeout`] when it does not come up.
    pub fn start(namespace: &Namespace) -> Result<Self, Error> {
        let mut command = Command::new("ip");
        command.args(["-o", "monitor", "link", "address", "route", "neigh"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = namespace.spawn(command)?;
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody listens any more: so be it.
                let _ = sender.send((Instant::now(), line));
            }
        });
        let monitor = Self { child, lines };
        // It says nothing when it has subscribed; a change that it reports shows that it has.
        let start = Instant::now();
        while !monitor.mark_is_seen(namespace)? {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(Error::Timeout {
                    what: "`ip monitor` reporting a change".into(),
                    limit: Duration::from_secs(10),
                    seen: "nothing".into(),
                });
            }
        }
        Ok(monitor)
    }

    fn mark_is_seen(&self, namespace: &Namespace) -> Result<bool, Error> {
        namespace.ip(&format!("route add blackhole {MARK} table 99"))?;
        namespace.ip(&format!("route del blackhole {MARK} table 99"))?;
        let limit = Instant::now() + Duration::from_millis(100);
        let deleted = |line: &str| line.contains(MARK) && line.starts_with("Deleted");
        Ok(self.wait_line(limit, deleted).is_some())
    }

    /// Waits for a line, and returns it with the time of its arrival. Earlier lines are gone then.
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

    /// What has been reported and not been read yet.
    ///
    /// # Errors
    ///
    /// As of `ip`.
    pub fn drain(&self, namespace: &Namespace) -> Result<Vec<String>, Error> {
        // Changes are reported in order: what came before the mark is all that there was.
        namespace.ip(&format!("route add blackhole {MARK} table 99"))?;
        namespace.ip(&format!("route del blackhole {MARK} table 99"))?;
        let mut lines = Vec::new();
        let limit = Instant::now() + Duration::from_secs(5);
        while let Some((_, line)) = self.wait_line(limit, |_| true) {
            match (line.contains(MARK), line.starts_with("Deleted")) {
                (true, true) => break,
                (true, false) => {}
                (false, _) => lines.push(line),
            }
        }
        Ok(lines)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
