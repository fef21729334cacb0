//! Captures packets on a device with tcpdump.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Namespace};

/// The maximum number of packets; more would add nothing.
const PACKETS: &str = "12";

/// A running tcpdump. Killed when dropped.
pub(super) struct Capture {
    device: String,
    child: Option<Child>,
}

impl Capture {
    /// Starts tcpdump, and waits until it listens.
    pub(super) fn start(namespace: &Namespace, device: &str) -> Result<Self, Error> {
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-l", "-t", "--immediate-mode", "-c", PACKETS, "-i", device]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = namespace.spawn(command)?;
        let mut capture = Self { device: device.to_owned(), child: Some(child) };
        let errors = capture.child.as_mut().and_then(|child| child.stderr.take());
        let mut said = String::new();
        for line in errors.into_iter().flat_map(|errors| BufReader::new(errors).lines()).flatten() {
            if line.contains("listening on") {
                return Ok(capture);
            }
            said = line;
        }
        Err(Error::Output { command: format!("tcpdump -i {device}"), problem: said })
    }

    /// Returns the device that it listens on.
    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// Stops it, and returns the packets, one per line.
    pub(super) fn finish(mut self) -> Result<String, Error> {
        let Some(child) = self.child.take() else { return Ok(String::new()) };
        // It exits by itself after [`PACKETS`] packets.
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
        let output = child.wait_with_output().map_err(Error::io("reading what tcpdump prints"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(if printed.is_empty() { "no packets".to_owned() } else { printed })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have exited already; it is gone afterwards in either case.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
