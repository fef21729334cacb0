//! Waits for a condition.

use std::time::{Duration, Instant};

use crate::Error;

/// The polling interval.
const INTERVAL: Duration = Duration::from_millis(10);

/// Polls until `probe` succeeds, and returns its result. On failure, `probe` returns the current
/// state.
///
/// # Errors
///
/// [`Error::Timeout`] with the last state that `probe` returned.
pub fn wait_until<T, E: ToString>(
    what: impl Into<String>,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        // The last attempt may start before the limit and take any time.
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
    fn timeout_reports_last_state() {
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
    fn probe_result_is_returned() {
        let found = wait_until("it", Duration::ZERO, || Ok::<_, String>(7)).unwrap();
        assert_eq!(found, 7);
    }
}
