//! Waiting for something to hold.

use std::time::{Duration, Instant};

use crate::Error;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks at something until it holds. `probe` returns what was found, or how it stands instead.
///
/// # Errors
///
/// [`Error::Timeout`] with what `probe` said last.
pub fn wait_until<T, E: ToString>(
    what: impl Into<String>,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        // A look that began in time counts, however long it took.
        let late = start.elapsed() >= limit;
        match probe() {
            Ok(found) => return Ok(found),
            Err(seen) if late => {
                return Err(Error::Timeout { what: what.into(), limit, seen: seen.to_string() });
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_look_is_reported() {
        let mut looks = 0;
        let error = wait_until("three looks", Duration::from_millis(1), || {
            looks += 1;
            Err::<(), _>(format!("{looks} looks"))
        })
        .unwrap_err();
        assert!(error.to_string().starts_with("three looks: not within 1ms; last seen: "));
        assert!(error.to_string().ends_with(&format!("{looks} looks")));
    }

    #[test]
    fn what_was_found_is_returned() {
        let found = wait_until("it", Duration::ZERO, || Ok::<_, String>(7)).unwrap();
        assert_eq!(found, 7);
    }
}
