//! Texts of the daemon that several tests depend on.

/// Obstacle in the place of a file.
pub const NOT_A_FILE: &str = "it exists and is not a regular file";

/// Obstacle in the place of a directory.
pub const NOT_A_DIRECTORY: &str = "it exists and is not a directory";

/// Returns the log line and event of a peer that left. `key` is that of its lease.
pub fn peer_left(key: &str) -> String {
    format!("peer {key}: left")
}

/// Returns the log line and event of a record that is not used, without the reason.
pub fn not_used(key: &str) -> String {
    format!("lease {key}: not used")
}
