use super::*;

#[test]
fn readiness_change_is_recorded_once() {
    use EventKind::{NotReady, Ready, StoreBack, StoreLost};
    let unmet = |found: &[(Condition, &str)]| -> Unmet {
        found.iter().map(|(condition, reason)| (*condition, (*reason).to_owned())).collect()
    };
    let kinds = |before: &Unmet, now: &Unmet| -> Vec<_> {
        turns(before, now).into_iter().map(|(kind, _)| kind).collect()
    };
    let start = unmet(&Condition::ALL.map(|condition| (condition, STARTING)));
    let good = unmet(&[]);
    let lost = unmet(&[(Condition::Watch, "etcd is gone")]);
    let refused = unmet(&[(Condition::Kernel, "no")]);
    assert_eq!(kinds(&start, &refused), []);
    assert_eq!(kinds(&start, &good), [Ready]);
    // Reading the first snapshot is no loss of the store.
    let first = unmet(&[(Condition::Watch, &reading(7))]);
    assert_eq!((kinds(&start, &first), kinds(&first, &good)), (vec![], vec![Ready]));
    assert_eq!(kinds(&good, &lost), [StoreLost, NotReady]);
    assert_eq!(kinds(&lost, &unmet(&[(Condition::Watch, "etcd is still gone")])), []);
    assert_eq!(kinds(&lost, &refused), [StoreBack]);
    assert_eq!(kinds(&lost, &good), [StoreBack, Ready]);
    assert_eq!(turns(&good, &refused), [(NotReady, "kernel: no".to_owned())]);
}

#[test]
fn reason_of_foreign_text_is_one_visible_line() {
    let readiness = Readiness::new();
    let forged = "no\nMAINPID=1\r\u{1b}[2J \u{202e}\u{200b}";
    assert!(readiness.unmet(Condition::Rules, forged));
    assert!(!readiness.unmet(Condition::Rules, forged));
    let seen = readiness.subscribe();
    assert_eq!(seen.borrow()[&Condition::Rules], "no MAINPID=1 [2J \\u{202e}\\u{200b}");
    readiness.unmet(Condition::Rules, "x".repeat(100_000));
    assert_eq!(seen.borrow()[&Condition::Rules].chars().count(), REASON_LIMIT + 1);
}

#[test]
fn new_node_has_no_condition_met() {
    let unmet = Readiness::new().subscribe().borrow().clone();
    assert_eq!(unmet.len(), Condition::ALL.len());
    assert!(unmet.values().all(|reason| reason == STARTING));
}

#[test]
fn conditions_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> =
        Condition::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), Condition::ALL.len());
    assert_eq!(Condition::Config.to_string(), "network config");
}

#[test]
fn repeated_reason_wakes_nobody() {
    let readiness = Readiness::new();
    let mut seen = readiness.subscribe();
    readiness.unmet(Condition::Lease, "no free subnet");
    assert!(seen.has_changed().unwrap());
    seen.mark_unchanged();
    readiness.unmet(Condition::Lease, "no free subnet");
    readiness.met(Condition::Config);
    assert!(seen.has_changed().unwrap());
    seen.mark_unchanged();
    readiness.met(Condition::Config);
    assert!(!seen.has_changed().unwrap());
}

#[test]
fn warnings_are_replaced_and_do_not_affect_readiness() {
    let readiness = Readiness::new();
    Condition::ALL.iter().for_each(|condition| readiness.met(*condition));
    let warnings = readiness.warnings();
    readiness.warn(vec!["one".to_owned(), "two".to_owned()]);
    readiness.warn(vec!["three".to_owned()]);
    assert_eq!(*warnings.borrow(), ["three"]);
    assert!(readiness.subscribe().borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn chronicle_records_each_turn_in_the_history() {
    let (readiness, history) = (Readiness::new(), History::default());
    chronicle(readiness.subscribe(), history.clone());
    let settle = || tokio::time::sleep(std::time::Duration::from_millis(1));
    settle().await;
    Condition::ALL.iter().for_each(|condition| readiness.met(*condition));
    settle().await;
    readiness.unmet(Condition::Rules, "iptables is missing");
    settle().await;
    readiness.unmet(Condition::Rules, "iptables is still missing");
    settle().await;
    readiness.met(Condition::Rules);
    settle().await;
    let events: Vec<_> = history.events().into_iter().map(|event| event.text).collect();
    let expected =
        ["all conditions are met", "traffic rules: iptables is missing", "all conditions are met"];
    assert_eq!(events, expected);
}

#[test]
fn node_is_ready_when_all_conditions_hold() {
    use Condition::Watch;
    let readiness = Readiness::new();
    let seen = readiness.subscribe();
    for condition in Condition::ALL {
        assert!(seen.borrow().contains_key(&condition));
        readiness.met(condition);
    }
    assert!(seen.borrow().is_empty());
    assert!(readiness.unmet(Watch, "etcd is gone"));
    assert!(!readiness.unmet(Watch, "etcd is gone"));
    assert!(readiness.unmet(Watch, "etcd is still gone"));
    assert_eq!(seen.borrow()[&Watch], "etcd is still gone");
}
