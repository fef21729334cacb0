//! Output of a plugin: its log lines and its standard output and error, forwarded to the daemon's
//! log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use heddle_core::rate::{Bucket, Rate};
use heddle_core::text::one_line;
use heddle_grant::Limits;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::bindings::backend::heddle::overlay::log::Level;

/// Log target of these lines, so that they can be filtered separately from the host's own.
const TARGET: &str = "plugin";
/// Length limit of a line in characters.
const LINE: usize = 1024;
/// Maximum number of bytes taken from the guest's stream at a time.
const CHUNK: usize = 4096;

/// Output of a plugin, through any channel. Clones share it.
#[derive(Clone)]
pub(crate) struct GuestOutput {
    /// Log of the plugin, shared by all its instances.
    log: Arc<Mutex<Log>>,
    /// Output of the instance, separate for each instance that can be called while another is.
    output: Arc<Mutex<Output>>,
}

/// A plugin's lines in the daemon's log, with their rate limit.
struct Log {
    plugin: String,
    bucket: Bucket,
    limits: Limits,
    /// Number of lines that the rate limit has dropped since the last line that passed.
    silenced: u64,
}

/// Standard output and error of an instance.
#[derive(Default)]
struct Output {
    /// Output without a line end yet.
    partial: String,
    /// Output of the current call, which contains the message if the guest panics.
    last_output: String,
}

impl GuestOutput {
    pub(crate) fn new(plugin: &str, limits: &Limits) -> Self {
        let log = Log {
            plugin: plugin.to_owned(),
            bucket: Bucket::new(rate(limits)),
            limits: limits.clone(),
            silenced: 0,
        };
        Self { log: Arc::new(Mutex::new(log)), output: Arc::default() }
    }

    /// Returns the output of another instance of the same plugin, for concurrent calls.
    pub(crate) fn of_another_instance(&self) -> Self {
        Self { log: self.log.clone(), output: Arc::default() }
    }

    /// Writes one line to the log, subject to the rate limit.
    pub(crate) fn line(&self, level: Level, line: &str) {
        lock(&self.log).line(level, line);
    }

    /// Ends the output of earlier calls: a line without an end is complete, since the instance may
    /// have trapped.
    pub(crate) fn begin_call(&self) {
        let mut output = lock(&self.output);
        output.last_output.clear();
        self.end_line(&mut output);
    }

    /// Returns the output of this call to standard output and error, on one line.
    pub(crate) fn last_output(&self) -> String {
        one_line(&lock(&self.output).last_output, LINE)
    }

    fn output(&self, bytes: &[u8]) {
        let mut output = lock(&self.output);
        let text = String::from_utf8_lossy(bytes);
        if output.last_output.len() < LINE {
            output.last_output.push_str(&text);
        }
        for piece in text.split_inclusive('\n') {
            if output.partial.len() < LINE {
                output.partial.push_str(piece);
            }
            if piece.ends_with('\n') {
                self.end_line(&mut output);
            }
        }
    }

    fn end_line(&self, output: &mut Output) {
        let line = std::mem::take(&mut output.partial);
        if !line.trim().is_empty() {
            self.line(Level::Warn, &line);
        }
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the rate limit of a plugin's log lines.
fn rate(limits: &Limits) -> Rate {
    let interval = Duration::from_secs(1) / limits.log_rate.max(1);
    Rate { burst: limits.log_burst, interval }
}

impl Log {
    fn line(&mut self, level: Level, line: &str) {
        if !self.bucket.take(Instant::now()) {
            self.silenced += 1;
            return;
        }
        let plugin = self.plugin.as_str();
        if self.silenced > 0 {
            let lines = std::mem::take(&mut self.silenced);
            let Limits { log_burst: burst, log_rate: rate, .. } = self.limits;
            tracing::warn!(
                target: TARGET, plugin,
                "plugin {plugin}: {lines} log lines dropped; its limits are {burst} at once and {rate} per second"
            );
        }
        let line = one_line(line, LINE);
        match level {
            Level::Error => tracing::error!(target: TARGET, plugin, "{line}"),
            Level::Warn => tracing::warn!(target: TARGET, plugin, "{line}"),
            Level::Info => tracing::info!(target: TARGET, plugin, "{line}"),
            Level::Debug => tracing::debug!(target: TARGET, plugin, "{line}"),
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Used by WASI after 0.2 only, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_beyond_the_rate_limit_are_dropped() {
        let limits = Limits { log_burst: 20, log_rate: 5, ..Limits::default() };
        let (mut bucket, start) = (Bucket::new(rate(&limits)), Instant::now());
        let heard = (0..1000).filter(|_| bucket.take(start)).count();
        assert_eq!(heard, 20);
        assert!(!bucket.take(start + Duration::from_millis(100)));
        assert!(bucket.take(start + Duration::from_millis(300)));
    }

    #[test]
    fn line_without_an_end_ends_with_its_call() {
        let guest_output = GuestOutput::new("test", &Limits::default());
        guest_output.begin_call();
        guest_output.output(b"half a line, then a tr");
        guest_output.begin_call();
        assert_eq!(lock(&guest_output.output).partial, "");
    }

    #[test]
    fn last_words_hold_only_the_current_call() {
        let guest_output = GuestOutput::new("test", &Limits::default());
        guest_output.output(b"before\n");
        guest_output.begin_call();
        guest_output.output(b"panicked at\nthe disco\n");
        assert_eq!(guest_output.last_output(), "panicked at the disco");
        let other = guest_output.of_another_instance();
        other.output(b"fine\n");
        assert_eq!(guest_output.last_output(), "panicked at the disco");
    }
}
