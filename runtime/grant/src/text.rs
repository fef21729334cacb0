//! Sanitizing of texts written by plugins, for people.

use std::time::Duration;

use heddle_core::text::one_line;

/// Length limit of a plugin's text in an error message, in characters.
const LIMIT: usize = 500;

/// Returns the text as one line of bounded length without control characters, so that a plugin
/// cannot forge a line of the log.
pub fn plain(text: &str) -> String {
    one_line(text, LIMIT)
}

/// Formats a time limit: `1 s`, `250 ms`.
pub fn time(duration: Duration) -> String {
    if duration.subsec_millis() == 0 && duration.as_secs() > 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

/// Formats an amount of memory: `64 MiB`, `512 KiB`.
pub fn memory(bytes: impl TryInto<u64>) -> String {
    let bytes = bytes.try_into().unwrap_or(u64::MAX);
    if bytes >= 1 << 20 {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    } else {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_formatted_in_round_units() {
        assert_eq!(time(Duration::from_secs(1)), "1 s");
        assert_eq!(time(Duration::from_millis(250)), "250 ms");
        assert_eq!(memory(64 << 20), "64 MiB");
        assert_eq!(memory(100), "1 KiB");
    }
}
