use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use heddle_core::object::Plan;

use crate::testing::lease;

use super::*;

/// A prober whose results are scripted.
#[derive(Default)]
struct Scripted {
    probed: Mutex<BTreeSet<IpAddr>>,
    health: Mutex<BTreeMap<IpAddr, Health>>,
}

struct Shared(Arc<Scripted>);

impl Prober for Shared {
    fn watch(&self, addresses: BTreeSet<IpAddr>) {
        *self.0.probed.lock().unwrap() = addresses;
    }

    fn health(&self, address: IpAddr) -> Option<Health> {
        self.0.health.lock().unwrap().get(&address).copied()
    }
}

/// Returns a prober of nodes that answer at the second address of their subnets.
fn probing() -> (Probing, Arc<Scripted>, mpsc::Sender<News>) {
    let (sender, news) = mpsc::channel(1);
    let scripted = Arc::new(Scripted::default());
    let place = Place::of(&lease(1), &Plan::default());
    (Probing { prober: Box::new(Shared(scripted.clone())), news, place }, scripted, sender)
}

fn address(number: u8) -> IpAddr {
    [10, 244, number, 1].into()
}

/// Sets the health of a peer that has answered before.
fn set(scripted: &Scripted, number: u8, state: State) {
    set_as(scripted, number, state, Some(Duration::from_millis(1)));
}

fn set_as(scripted: &Scripted, number: u8, state: State, round_trip: Option<Duration>) {
    let health = Health { state, since: SystemTime::now(), round_trip, loss: 0.0 };
    scripted.health.lock().unwrap().insert(address(number), health);
}

#[test]
fn peers_are_probed_at_one_address_each() {
    let (probing, scripted, _) = probing();
    probing.watch([lease(7), lease(8)].iter());
    assert_eq!(*scripted.probed.lock().unwrap(), [address(7), address(8)].into());
    probing.watch([].iter());
    assert!(scripted.probed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bridge_that_never_answered_is_unknown_and_no_news() {
    let (mut probing, scripted, news) = probing();
    set_as(&scripted, 7, State::Unreachable, None);
    assert_eq!(probing.health(&lease(7)).unwrap().state, State::Unknown);
    assert!(!probing.is_unreachable(&lease(7)));
    set(&scripted, 8, State::Unreachable);
    let sending = async {
        for number in [7, 8] {
            let news_of = News { address: address(number), state: State::Unreachable };
            news.send(news_of).await.unwrap();
        }
    };
    let (first, ()) = tokio::join!(probing.news(), sending);
    assert_eq!(first.address, address(8));
}

#[test]
fn health_is_that_of_the_peers_address() {
    let (probing, scripted, _) = probing();
    assert_eq!(probing.health(&lease(7)), None);
    set(&scripted, 7, State::Unreachable);
    set(&scripted, 8, State::Reachable);
    assert_eq!(probing.health(&lease(7)).unwrap().state, State::Unreachable);
    assert!(probing.is_unreachable(&lease(7)));
    assert!(!probing.is_unreachable(&lease(8)));
    assert!(!probing.is_unreachable(&lease(9)));
}

#[test]
fn peer_is_found_by_its_probed_address_only() {
    let (probing, _, _) = probing();
    assert!(probing.is_of(address(7), &lease(7)));
    assert!(!probing.is_of(address(8), &lease(7)));
    assert!(!probing.is_of([10, 244, 7, 2].into(), &lease(7)));
}

#[tokio::test(start_paused = true)]
async fn prober_that_has_ended_gives_no_more_news() {
    let (mut probing, _, sender) = probing();
    let silent = News { address: address(7), state: State::Unreachable };
    sender.send(silent).await.unwrap();
    assert_eq!(probing.news().await, silent);
    drop(sender);
    let more = tokio::time::timeout(Duration::from_secs(3600), probing.news()).await;
    assert!(more.is_err());
}

fn silent(number: u8) -> News {
    News { address: address(number), state: State::Unreachable }
}

#[test]
fn few_silent_peers_are_named_without_a_summary() {
    let (mut reachability, now) = (Reachability::new(), Instant::now());
    assert!((0..5).all(|number| reachability.admit(silent(number), now)));
    assert_eq!(reachability.due(), None);
    assert!(!reachability.take(now + SUMMARY_DELAY));
}

#[test]
fn many_silent_peers_have_one_summary_after_five_seconds() {
    let (mut reachability, now) = (Reachability::new(), Instant::now());
    let named = (0..200).filter(|number| reachability.admit(silent(*number), now)).count();
    assert_eq!(named, 5);
    assert_eq!(reachability.due(), Some(now + SUMMARY_DELAY));
    assert!(!reachability.take(now));
    assert!(reachability.take(now + SUMMARY_DELAY));
    assert_eq!(reachability.due(), None);
    assert!(!reachability.take(now + SUMMARY_DELAY * 2));
}

#[test]
fn silent_and_answering_peers_have_one_summary() {
    let (mut reachability, now) = (Reachability::new(), Instant::now());
    for number in 0..20 {
        reachability.admit(silent(number), now);
        let answers = News { state: State::Reachable, ..silent(number) };
        reachability.admit(answers, now + Duration::from_secs(1));
    }
    assert!(reachability.take(now + SUMMARY_DELAY + Duration::from_secs(1)));
    assert_eq!(reachability.due(), None);
}

#[test]
fn flapping_peer_is_named_three_times_a_minute_at_most() {
    let (mut reachability, start) = (Reachability::new(), Instant::now());
    let at = |second: u64| start + Duration::from_secs(second);
    let named = (0..6).filter(|turn| reachability.admit(silent(7), at(turn * 10))).count();
    assert!((3..=4).contains(&named), "{named}");
}
