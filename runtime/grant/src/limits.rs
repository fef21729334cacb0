//! Resource limits of plugins.

use std::time::Duration;

/// Resource limits of one plugin. The fields name the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of an instance, in bytes. 64 MiB.
    pub memory: usize,
    /// Deadline of one call. 1 s.
    pub call: Duration,
    /// Deadline of one call in the packet path, where packets wait for it. 20 ms.
    pub packet_call: Duration,
    /// Host memory for one answer or log line, in bytes. 8 MiB, twice what the largest plan within
    /// the default limits takes.
    pub answer: usize,
    /// Number of objects in the plan of the node. 10,000.
    pub node_objects: usize,
    /// Number of objects in the plan of one peer. 64.
    pub peer_objects: usize,
    /// Number of files of an emitter. 16.
    pub files: usize,
    /// Size of one file, in bytes. 1 MiB.
    pub file: usize,
    /// Burst of log lines. 20.
    pub log_burst: u32,
    /// Sustained rate of log lines, per second. 5.
    pub log_rate: u32,
    /// Circuit breaker: number of consecutive failed calls, each for a different input, that
    /// suspend the plugin. 5.
    pub failures: usize,
    /// Longest suspension; the first one lasts 1 s. 1 min.
    pub suspension: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            call: Duration::from_secs(1),
            packet_call: Duration::from_millis(20),
            answer: 8 << 20,
            node_objects: 10_000,
            peer_objects: 64,
            files: 16,
            file: 1 << 20,
            log_burst: 20,
            log_rate: 5,
            failures: 5,
            suspension: Duration::from_secs(60),
        }
    }
}
