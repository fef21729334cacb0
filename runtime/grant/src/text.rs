//! Texts that a plugin wrote, on their way to people.

use std::time::Duration;

use heddle_core::text::one_line;

/// The longest text of a plugin's in an error message, in characters.
const LIMIT: usize = 500;

/// One line of bounded length without control characters, so that a plugin cannot forge a line of the log.
pub fn plain(text: &str) -> String {
    one_line(text, LIMIT)
}

/// A time limit in words: `1 s`, `250 ms`.
pub fn time(duration: Duration) -> String {
    if duration.subsec_millis() == 0 && duration.as_secs() > 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

/// An amount of memory in words: `64 MiB`, `512 KiB`.
pub fn memory(bytes: usize) -> String {
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
    fn limits_read_well() {
        assert_eq!(time(Duration::from_secs(1)), "1 s");
        assert_eq!(time(Duration::from_millis(250)), "250 ms");
        assert_eq!(memory(64 << 20), "64 MiB");
        assert_eq!(memory(100), "1 KiB");
    }
}
