use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::Lease;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::testing::{flags, lease, parsed, site};

use super::*;

const RESYNC: Duration = Duration::from_secs(5);

/// A ruleset that another program can damage, and whose checks take a while or fail.
#[derive(Default)]
struct Model {
    holds: bool,
    failure: Option<&'static str>,
    deaf: Option<&'static str>,
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
        self.with(|model| model.deaf)
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
        if self.with(|model| model.deaf).is_some() {
            std::future::pending::<()>().await;
        }
        self.1.notified().await;
    }
}

/// Follows the rules for a time.
async fn follow_for(model: &Shared, time: Duration, readiness: &Readiness, history: &History) {
    let following = follow(Box::new(model.clone()), RESYNC, readiness, history);
    let _ = tokio::time::timeout(time, following).await;
}

#[test]
fn lease_without_a_family_gets_rules_for_the_other_alone() {
    let config = br#"{"Network":"10.0.0.0/8","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#;
    let config = NetworkConfig::parse(config).unwrap();
    let key = "10.244.8.0-24&fd00:0:0:8::-64".parse().unwrap();
    let lease = Lease::from_value(key, br#"{"PublicIPv6":"2001:db8::1"}"#).unwrap();
    let no_file = |_: &std::path::Path| Ok(String::new());
    let flags = Flags::read(["heddled".into()], |_| None, no_file).unwrap();
    let families = wanted(&flags, &site(config, lease)).families;
    let (network, subnet) = ("fd00::/48".parse().unwrap(), "fd00:0:0:8::/64".parse().unwrap());
    assert_eq!(families, [FamilyRules { network, subnet }].into());
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

/// Returns the times of the checks in a span, in milliseconds after its beginning.
async fn checks_within(model: &Shared, time: Duration) -> Vec<u128> {
    let begun = Instant::now();
    follow_for(model, time, &Readiness::new(), &History::default()).await;
    model.with(|model| model.checks.iter().map(|at| (*at - begun).as_millis()).collect())
}

#[tokio::test(start_paused = true)]
async fn rules_that_cannot_be_monitored_are_checked_with_resyncs_only() {
    let model = Shared::default();
    model.with(|model| model.deaf = Some("Operation not permitted"));
    let damage = async {
        sleep(Duration::from_secs(1)).await;
        model.damage();
    };
    let (checks, ()) = tokio::join!(checks_within(&model, Duration::from_secs(11)), damage);
    assert_eq!(checks, [0, 5000, 10_000]);
    assert!(model.with(|model| model.holds));
}

#[tokio::test(start_paused = true)]
async fn changes_within_the_pause_cause_one_check() {
    let model = Shared::default();
    let damage = async {
        for _ in 0..10 {
            sleep(Duration::from_millis(20)).await;
            model.damage();
        }
    };
    let (checks, ()) = tokio::join!(checks_within(&model, Duration::from_secs(4)), damage);
    assert_eq!(checks, [0, 500]);
}

#[tokio::test(start_paused = true)]
async fn failed_check_is_repeated_with_the_resync() {
    let model = Shared::default();
    model.with(|model| model.failure = Some("iptables is missing"));
    assert_eq!(checks_within(&model, Duration::from_secs(16)).await, [0, 5000, 10_000, 15_000]);
}

#[tokio::test(start_paused = true)]
async fn check_longer_than_the_resync_is_followed_by_a_pause() {
    let model = Shared::default();
    model.with(|model| model.takes = Duration::from_secs(20));
    let checks = checks_within(&model, Duration::from_secs(60)).await;
    // Each ends after 20 s, and the next begins 5 s later.
    assert_eq!(checks, [20_000, 45_000]);
}

#[tokio::test(start_paused = true)]
async fn rules_restored_after_a_failed_start_are_no_drift() {
    let (model, readiness, history) = (Shared::default(), Readiness::new(), History::default());
    model.with(|model| model.failure = Some("iptables is missing"));
    let install = async {
        sleep(Duration::from_secs(7)).await;
        model.with(|model| model.failure = None);
    };
    tokio::join!(follow_for(&model, Duration::from_secs(20), &readiness, &history), install);
    assert!(model.with(|model| model.holds));
    assert_eq!(history.events().len(), 0);
}

const V4: &str = r#"{"Network":"10.244.0.0/16"}"#;

#[test]
fn rules_by_default_forward_and_do_not_masquerade() {
    let rules = wanted(&flags(&[]), &site(parsed(V4), lease(7)));
    assert!(rules.masquerade.is_none() && rules.forward);
    assert!(matches!(rules.mode, Mode::Iptables));
    assert_eq!(rules.network_name, "/coreos.com/network");
    let family = rules.families.v4.unwrap();
    assert_eq!(family.network.to_string(), "10.244.0.0/16");
    assert_eq!(family.subnet.to_string(), "10.244.7.0/24");
}

#[test]
fn flags_decide_on_masquerading_and_forwarding() {
    let rules = |arguments: &[&str]| wanted(&flags(arguments), &site(parsed(V4), lease(7)));
    let random = |rules: Rules| rules.masquerade.map(|masquerade| masquerade.random_fully);
    assert_eq!(random(rules(&["--ip-masq"])), Some(true));
    assert_eq!(random(rules(&["--ip-masq", "--ip-masq-fully-random-disable"])), Some(false));
    assert_eq!(random(rules(&["--ip-masq-fully-random-disable"])), None);
    assert!(!rules(&["--iptables-forward-rules=false"]).forward);
}

#[test]
fn config_decides_on_nftables() {
    let config = parsed(r#"{"Network":"10.244.0.0/16","EnableNFTables":true}"#);
    assert!(matches!(wanted(&flags(&[]), &site(config, lease(7))).mode, Mode::Nftables));
}

#[test]
fn dual_stack_has_rules_for_both_families() {
    let config =
        parsed(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
    let value = br#"{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7"}"#;
    let lease = Lease::from_value("10.244.7.0-24&fd00:0:0:7::-64".parse().unwrap(), value).unwrap();
    let rules = wanted(&flags(&[]), &site(config, lease));
    let subnets: Vec<_> = rules.families.iter().map(|family| family.subnet.to_string()).collect();
    assert_eq!(subnets, ["10.244.7.0/24", "fd00:0:0:7::/64"]);
}
