//! How much a plugin may take.

use std::time::Duration;

/// Bounds on one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of an instance, in bytes. 64 MiB.
    pub memory: usize,
    /// How long one call may take. 1 s.
    pub call: Duration,
    /// How long one call in the packet path may take, where packets wait for it. 20 ms.
    pub packet_call: Duration,
    /// What one answer or log line may cost the host, in bytes: 8 MiB, twice what the largest plan within the usual
    /// bounds takes.
    pub answer: usize,
    /// Objects in the plan of the node. 10,000.
    pub node_objects: usize,
    /// Objects in the plan of one peer. 64.
    pub peer_objects: usize,
    /// Files of an emitter. 16.
    pub files: usize,
    /// The longest file, in bytes. 1 MiB.
    pub file: usize,
    /// How many lines of the log may come at once. 20.
    pub log_burst: u32,
    /// How many lines a second may come in the long run. 5.
    pub log_rate: u32,
    /// How many calls in a row, each about something else, have to fail for the plugin to be suspended. 5.
    pub failures: usize,
    /// The longest suspension; the first one is 1 s. 1 min.
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
