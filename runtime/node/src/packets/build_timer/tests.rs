use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn change_is_built_at_once_within_rate_limit() {
    let start = Instant::now();
    let mut timer = BuildTimer::new(start);
    assert_eq!(timer.wait(start), None);
    timer.changed(start);
    assert_eq!(timer.wait(start), Some(ms(0)));
    timer.built(start, start + ms(10), true);
    assert_eq!(timer.wait(start + ms(10)), None);
    timer.changed(start + ms(11));
    timer.changed(start + ms(12));
    assert_eq!(timer.wait(start + ms(12)), Some(ms(38)));
}

#[test]
fn repeated_failures_are_rebuilt_with_backoff() {
    let mut now = Instant::now();
    let mut timer = BuildTimer::new(now);
    let mut waits = Vec::new();
    for _ in 0..9 {
        timer.failed(now);
        let wait = timer.wait(now).unwrap();
        waits.push(wait.as_millis());
        now += wait;
        timer.built(now, now, true);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    // After ten seconds without a failure, the backoff starts over.
    now += SETTLED;
    timer.failed(now);
    assert_eq!(timer.wait(now), Some(ms(100)));
}

#[test]
fn failed_build_is_retried() {
    let now = Instant::now();
    let mut timer = BuildTimer::new(now);
    timer.changed(now);
    timer.built(now, now, false);
    assert_eq!(timer.wait(now), Some(ms(100)));
}

#[test]
fn change_during_backoff_is_built_at_once() {
    let now = Instant::now();
    let mut timer = BuildTimer::new(now);
    timer.failed(now);
    timer.changed(now);
    assert_eq!(timer.wait(now), Some(ms(0)));
}
