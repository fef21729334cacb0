use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::*;

const RESYNC: Duration = Duration::from_secs(5);

/// A ruleset that another program can damage, and whose checks take a while or fail.
#[derive(Default)]
struct Model {
    holds: bool,
    failure: Option<&'static str>,
    takes: Duration,
    checks: Vec<Instant>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Model>>, Arc<Notify>);

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn damage(&self) {
        self.with(|model| model.holds = false);
        self.1.notify_one();
    }
}

#[async_trait]
impl Ruleset for Shared {
    fn deaf(&self) -> Option<&str> {
        None
    }

    async fn ensure(&mut self) -> Result<Vec<String>, String> {
        sleep(self.with(|model| model.takes)).await;
        self.with(|model| {
            model.checks.push(Instant::now());
            if let Some(failure) = model.failure {
                return Err(failure.to_owned());
            }
            let held = std::mem::replace(&mut model.holds, true);
            Ok(if held { Vec::new() } else { vec!["rules restored".to_owned()] })
        })
    }

    async fn changed(&mut self) {
        self.1.notified().await;
    }
}

/// Follows the rules for a time.
async fn follow_for(model: &Shared, time: Duration, readiness: &Readiness, history: &History) {
    let following = follow(Box::new(model.clone()), RESYNC, readiness, history);
    let _ = tokio::time::timeout(time, following).await;
}

#[test]
fn slow_checks_pause_longer_but_not_past_resync() {
    for (took, expected) in [(1, 500), (100, 900), (15_000, 5000)] {
        assert_eq!(pause(Duration::from_millis(took), RESYNC), Duration::from_millis(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn rules_are_checked_at_once_and_with_every_resync() {
    let (model, readiness, history) = (Shared::default(), Readiness::new(), History::default());
    let begun = Instant::now();
    follow_for(&model, Duration::from_secs(11), &readiness, &history).await;
    let at: Vec<_> =
        model.with(|model| model.checks.iter().map(|at| (*at - begun).as_secs()).collect());
    assert_eq!(at, [0, 5, 10]);
    assert!(!readiness.subscribe().borrow().contains_key(&Condition::Rules));
    // What the start found missing is no drift.
    assert_eq!(history.events().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn damaged_rules_are_restored_at_once_and_reported_as_drift() {
    let (model, readiness, history) = (Shared::default(), Readiness::new(), History::default());
    let damage = async {
        sleep(Duration::from_secs(2)).await;
        model.damage();
        sleep(Duration::from_millis(1)).await;
        assert!(model.with(|model| model.holds));
    };
    tokio::join!(follow_for(&model, Duration::from_secs(3), &readiness, &history), damage);
    let events = history.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].kind, EventKind::Drift);
}

#[tokio::test(start_paused = true)]
async fn changes_without_end_cost_a_tenth_of_the_time() {
    let (model, readiness, history) = (Shared::default(), Readiness::new(), History::default());
    model.with(|model| model.takes = Duration::from_millis(100));
    let flood = async {
        for _ in 0..1000 {
            model.damage();
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(follow_for(&model, Duration::from_secs(10), &readiness, &history), flood);
    // Each takes 100 ms, and the next begins 900 ms later.
    assert_eq!(model.with(|model| model.checks.len()), 10);
}

#[tokio::test(start_paused = true)]
async fn rules_that_fail_are_named_until_they_hold() {
    let (model, readiness, history) = (Shared::default(), Readiness::new(), History::default());
    model.with(|model| model.failure = Some("iptables-restore is missing"));
    follow_for(&model, Duration::from_secs(1), &readiness, &history).await;
    let unmet = readiness.subscribe();
    assert_eq!(unmet.borrow()[&Condition::Rules], "iptables-restore is missing");
    model.with(|model| model.failure = None);
    follow_for(&model, Duration::from_secs(1), &readiness, &history).await;
    assert!(!unmet.borrow().contains_key(&Condition::Rules));
}
