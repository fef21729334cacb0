//! Integers as in Go's package `flag`: also in other bases, with underscores, and with a sign.

/// Minutes of `--subnet-lease-renew-margin`, as in flannel.
const MARGIN: std::ops::RangeInclusive<i64> = 1..=1439;

/// Parses an integer as Go's `strconv.ParseInt` does with base 0.
fn integer(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    // Go accepts an underscore between digits, and after the base.
    let separated = !digits.ends_with('_')
        && !digits.contains("__")
        && (base != 10 || !digits.starts_with('_'));
    let plain = digits.replace('_', "");
    let signed = plain.starts_with(['+', '-']);
    let value = i64::from_str_radix(&plain, base).ok().filter(|_| separated && !signed);
    value.map(|value| sign * value).ok_or_else(|| "expected an integer".to_owned())
}

/// Parses the minutes of `--subnet-lease-renew-margin`.
pub(crate) fn margin(text: &str) -> Result<u64, String> {
    let minutes = integer(text)?;
    let fits = MARGIN.contains(&minutes).then(|| minutes.unsigned_abs());
    fits.ok_or_else(|| format!("expected {} to {} minutes", MARGIN.start(), MARGIN.end()))
}

/// Parses the seconds of `--iptables-resync`. With zero and less, flannel checks without a pause.
pub(crate) fn resync(text: &str) -> Result<u64, String> {
    Ok(integer(text)?.max(1).unsigned_abs())
}

/// Parses `--healthz-port`. With a negative one, flannel does not listen.
pub(crate) fn healthz_port(text: &str) -> Result<u16, String> {
    let port = u16::try_from(integer(text)?.max(0));
    port.map_err(|_| "expected 0 to 65535".to_owned())
}

/// Parses the log level, which Go reads as a decimal number of 32 bits.
pub(crate) fn level(text: &str) -> Result<u8, String> {
    let level: i32 = text.parse().map_err(|_| "expected an integer".to_owned())?;
    Ok(u8::try_from(level.max(0)).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_parsed_as_go_does() {
        for (text, expected) in [
            ("5", 5),
            ("+5", 5),
            ("-5", -5),
            ("0", 0),
            ("010", 8),
            ("0o10", 8),
            ("0x1F", 31),
            ("0X1f", 31),
            ("0b101", 5),
            ("1_000", 1000),
            ("0x_10", 16),
            ("0_10", 8),
        ] {
            assert_eq!(integer(text), Ok(expected), "{text}");
        }
        for text in ["", "-", "x", "5s", "08", "0x", "1__0", "1_", "_1", "--5", "0x-5", "5 "] {
            assert!(integer(text).is_err(), "{text}");
        }
    }
}
