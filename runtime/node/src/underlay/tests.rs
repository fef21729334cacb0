use tokio::time::Instant;

use crate::testing::{ScriptedKernel, config, flags, interface, lease, site};

use super::*;

/// A node on eth0 with 192.0.2.1, and what has become of that.
struct Case {
    kernel: ScriptedKernel,
    readiness: Readiness,
    changed: Arc<Notify>,
    peers: watch::Sender<BTreeSet<IpAddr>>,
}

impl Case {
    fn new(interfaces: Vec<heddle_core::interface::Interface>) -> Self {
        let kernel = ScriptedKernel::default();
        kernel.with(|script| script.facts = interfaces);
        let (readiness, peers) = (Readiness::new(), watch::Sender::default());
        Self { kernel, readiness, changed: Arc::default(), peers }
    }

    fn set(&self, interfaces: Vec<heddle_core::interface::Interface>) {
        self.kernel.with(|script| script.facts = interfaces);
        self.changed.notify_one();
    }

    /// Follows the underlay for a time. Returns the reason if it has moved for good.
    async fn follow_for(&self, time: Duration) -> Option<Moved> {
        let (flags, site) = (flags(&[]), site(config(), lease(1)));
        let (peers, underlay) = (self.peers.subscribe(), self.changed.clone());
        let changes = Changes { underlay, peers };
        let following = follow(&flags, &site, &self.kernel, changes, &self.readiness);
        tokio::time::timeout(time, following).await.ok().map(|moved| moved.unwrap_err())
    }

    fn reason(&self) -> Option<String> {
        self.readiness.subscribe().borrow().get(&Condition::Underlay).cloned()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn intact_underlay_meets_the_condition_at_once() {
    let case = Case::new(vec![interface("eth0", &["192.0.2.1/24"])]);
    assert!(case.follow_for(SECOND).await.is_none());
    assert_eq!(case.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn missing_interface_is_named_for_as_long_as_it_is_gone() {
    let case = Case::new(vec![]);
    assert!(case.follow_for(SECOND * 3600).await.is_none());
    let reason = case.reason().unwrap();
    assert!(reason.starts_with("interface eth0 is gone: "), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn underlay_elsewhere_for_ten_seconds_has_moved() {
    let case = Case::new(vec![interface("eth1", &["198.51.100.1/24"])]);
    let begun = Instant::now();
    let moved = case.follow_for(SECOND * 60).await.unwrap();
    assert_eq!(begun.elapsed(), SECOND * 10);
    assert!(moved.readdressed);
    let text = moved.to_string();
    assert!(text.starts_with("underlay: interface eth0 is gone: "), "{text}");
    assert!(text.ends_with("; exiting for a restart"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn address_on_another_interface_is_no_other_address() {
    let case = Case::new(vec![interface("eth1", &["192.0.2.1/24"])]);
    let moved = case.follow_for(SECOND * 60).await.unwrap();
    assert!(!moved.readdressed);
}

#[tokio::test(start_paused = true)]
async fn event_leads_to_a_check_at_once() {
    let case = Case::new(vec![interface("eth0", &["192.0.2.1/24"])]);
    let change = async {
        tokio::time::sleep(SECOND * 2).await;
        case.set(vec![]);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(case.reason().is_some());
    };
    let (moved, ()) = tokio::join!(case.follow_for(SECOND * 3), change);
    assert!(moved.is_none());
}

#[tokio::test(start_paused = true)]
async fn change_without_an_event_is_found_after_half_a_minute() {
    let case = Case::new(vec![interface("eth0", &["192.0.2.1/24"])]);
    let change = async {
        tokio::time::sleep(SECOND).await;
        case.kernel.with(|script| script.facts.clear());
        tokio::time::sleep(SECOND * 28).await;
        assert_eq!(case.reason(), None);
        tokio::time::sleep(SECOND * 2).await;
        assert!(case.reason().is_some());
    };
    tokio::join!(case.follow_for(SECOND * 40), change);
}

#[tokio::test(start_paused = true)]
async fn absence_that_is_interrupted_begins_anew() {
    let there = || vec![interface("eth0", &["192.0.2.1/24"])];
    let case = Case::new(there());
    let change = async {
        for _ in 0..5 {
            case.set(vec![interface("eth1", &["198.51.100.1/24"])]);
            tokio::time::sleep(SECOND * 9).await;
            case.set(there());
            tokio::time::sleep(SECOND).await;
        }
    };
    let (moved, ()) = tokio::join!(case.follow_for(SECOND * 60), change);
    assert!(moved.is_none());
    assert_eq!(case.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn unreadable_kernel_does_not_count_as_moved() {
    let case = Case::new(vec![interface("eth0", &["192.0.2.1/24"])]);
    case.follow_for(SECOND).await;
    case.kernel.with(|script| script.unreadable = true);
    assert!(case.follow_for(SECOND * 3600).await.is_none());
    assert_eq!(case.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn other_mtu_leaves_the_underlay_intact() {
    let mut narrow = interface("eth0", &["192.0.2.1/24"]);
    narrow.mtu = 1400;
    let case = Case::new(vec![narrow]);
    assert!(case.follow_for(SECOND * 60).await.is_none());
    assert_eq!(case.reason(), None);
}
