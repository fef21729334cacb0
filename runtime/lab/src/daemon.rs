//! A running `heddled`.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Namespace, http, wait_until};

/// Time limit for a daemon to become ready, on a loaded machine.
pub const READY_LIMIT: Duration = Duration::from_secs(30);

/// A `heddled` on one host that logs to a file. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    host: String,
    namespace: Arc<Namespace>,
    child: Child,
    started: Instant,
    log: PathBuf,
    notify: UnixDatagram,
}

impl Daemon {
    /// The port of `/healthz` and `/readyz` that [`Host::heddled`](crate::Host::heddled) sets.
    pub const HEALTH_PORT: u16 = 9980;

    /// Starts a daemon on the host with this name, the `number`th one from 0 on. Its log is in
    /// `directory`.
    pub(crate) fn start(
        host: &str,
        namespace: &Arc<Namespace>,
        directory: &Path,
        mut command: Command,
        number: u32,
    ) -> Result<Self, Error> {
        let file = |kind: &str| directory.join(format!("heddled-{number}.{kind}"));
        let (log, socket) = (file("log"), file("notify"));
        let notify = UnixDatagram::bind(&socket)
            .and_then(|notify| {
                // Short, so that the exit of a daemon is noticed while waiting for its message.
                notify.set_read_timeout(Some(Duration::from_millis(20)))?;
                Ok(notify)
            })
            .map_err(Error::io(format!("binding {}", socket.display())))?;
        let output =
            File::create(&log).map_err(Error::io(format!("creating {}", log.display())))?;
        let errors =
            output.try_clone().map_err(Error::io(format!("creating {}", log.display())))?;
        command.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null()).stdout(output).stderr(errors);
        let started = Instant::now();
        Ok(Self {
            host: host.to_owned(),
            namespace: Arc::clone(namespace),
            child: namespace.spawn(command)?,
            started,
            log,
            notify,
        })
    }

    /// Waits until it reports readiness to systemd, and returns the time since its start.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] if it exits instead, [`Error::Timeout`] after [`READY_LIMIT`], both with
    /// its log.
    pub fn wait_ready(&mut self) -> Result<Duration, Error> {
        self.wait_ready_within(READY_LIMIT)
    }

    /// Does the same with another time limit.
    ///
    /// # Errors
    ///
    /// The same as [`wait_ready`](Self::wait_ready).
    pub fn wait_ready_within(&mut self, limit: Duration) -> Result<Duration, Error> {
        let mut message = [0; 4096];
        let waiting = Instant::now();
        loop {
            match self.notify.recv(&mut message) {
                Ok(length) => {
                    let took = self.started.elapsed();
                    if message[..length].split(|&b| b == b'\n').any(|line| line == b"READY=1") {
                        return Ok(took);
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(Error::io("reading the notify socket")(error)),
            }
            self.check_running()?;
            if waiting.elapsed() > limit {
                return Err(Error::Timeout {
                    what: format!("heddled on {} getting ready", self.host),
                    limit,
                    seen: format!("a log ending with:\n{}", self.log_tail()),
                });
            }
        }
    }

    /// Requests `/healthz` or `/readyz`, and returns status and body.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] without an answer within two seconds.
    pub fn health(&self, path: &str) -> Result<(u16, String), Error> {
        self.health_at(&format!("http://127.0.0.1:{}{path}", Self::HEALTH_PORT))
    }

    /// Requests any other URL, and returns status and body.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] without an answer within two seconds.
    pub fn health_at(&self, url: &str) -> Result<(u16, String), Error> {
        http::get(&self.namespace, url)
    }

    /// Returns the name of its host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the resident memory in bytes (`VmRSS` of `/proc/<pid>/status`).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it has exited.
    pub fn resident_memory(&self) -> Result<u64, Error> {
        self.memory("VmRSS:")
    }

    /// Returns the peak resident memory in bytes (`VmHWM` of `/proc/<pid>/status`).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it has exited.
    pub fn peak_memory(&self) -> Result<u64, Error> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64, Error> {
        let path = format!("/proc/{}/status", self.pid());
        let status =
            std::fs::read_to_string(&path).map_err(Error::io(format!("reading {path}")))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok())
            .map(|kibibytes: u64| kibibytes * 1024)
            .ok_or_else(|| Error::Output { command: path, problem: format!("no {field}") })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it has exited.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        kill_process(Pid::from_child(&self.child), signal).map_err(|errno| {
            Error::io(format!("sending {signal:?} to heddled on {}", self.host))(errno.into())
        })
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::io(format!("waiting for heddled on {}", self.host)))
    }

    /// Waits until it exits.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`], with its log.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let what = format!("heddled on {} ending", self.host);
        wait_until(what, limit, || match self.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("a log ending with:\n{}", self.log_tail())),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Checks that it is still running.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`], with its log.
    pub fn check_running(&mut self) -> Result<(), Error> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => {
                Err(Error::Ended { host: self.host.clone(), status, log: self.log_tail() })
            }
        }
    }

    /// Sends it a signal and waits until it exits.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it has not exited after ten seconds.
    pub fn stop(mut self, signal: Signal) -> Result<ExitStatus, Error> {
        self.signal(signal)?;
        self.wait_exit(Duration::from_secs(10))
    }

    /// Returns its whole log.
    pub fn log(&self) -> String {
        // Without a log there is nothing to show.
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the path of its log.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Returns the last lines of its log.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 15;
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Waits until a line of its log contains all of these texts, and returns the line.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`], with its log.
    pub fn wait_log(&self, texts: &[&str], limit: Duration) -> Result<String, Error> {
        let what = format!("heddled on {} logging {texts:?}", self.host);
        wait_until(what, limit, || {
            let log = self.log();
            log.lines()
                .find(|line| texts.iter().all(|text| line.contains(text)))
                .map(str::to_owned)
                .ok_or_else(|| format!("a log ending with:\n{}", self.log_tail()))
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have exited already; it is gone afterwards in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let (host, tail) = (&self.host, self.log_tail());
            // A second panic would end the process, and nothing would be cleaned up.
            let _ = writeln!(io::stderr(), "--- log of heddled on {host} ends with:\n{tail}");
        }
    }
}
