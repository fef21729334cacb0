use std::time::Duration;

use crate::testing::{key, lease};

use super::*;

#[test]
fn peer_in_the_kernel_has_no_reason() {
    let peer = peer(&lease(7), None, false);
    assert_eq!(peer.key, "10.244.7.0-24");
    assert_eq!((peer.state, peer.reason), (PeerState::InKernel, None));
    assert_eq!(peer.public_addresses, [std::net::IpAddr::from([192, 0, 2, 7])]);
}

#[test]
fn peer_without_a_plan_or_with_a_part_of_it_has_a_reason() {
    let incomplete = peer(&lease(7), Some((PeerState::Incomplete, "busy".to_owned())), false);
    assert_eq!(incomplete.state, PeerState::Incomplete);
    assert_eq!(incomplete.reason.as_deref(), Some("busy"));
    let plan_retries = peer(&lease(7), Some((PeerState::NoPlan, "trapped".to_owned())), false);
    assert_eq!(plan_retries.state, PeerState::NoPlan);
    assert_eq!(plan_retries.reason.as_deref(), Some("trapped"));
}

#[test]
fn missing_peer_is_in_the_kernel_for_a_reason() {
    let peer = peer(&lease(7), None, true);
    assert_eq!(peer.state, PeerState::InKernel);
    assert!(peer.reason.unwrap().starts_with("missing lease: the store lost it"));
}

#[test]
fn cut_node_name_is_a_reason() {
    let name = "n".repeat(NODE_NAME_LIMIT + 1);
    let value = format!(r#"{{"PublicIP":"192.0.2.7","NodeName":"{name}"}}"#);
    let lease = Lease::from_value(key(7), value.as_bytes()).unwrap();
    let peer = peer(&lease, None, false);
    assert!(peer.reason.unwrap().starts_with("its NodeName is longer than 253 characters"));
}

#[test]
fn reason_of_a_peer_is_one_line_of_limited_length() {
    let reason = format!("one\ntwo {}", "x".repeat(10_000));
    let peer = peer(&lease(7), Some((PeerState::NoPlan, reason)), false);
    let reason = peer.reason.unwrap();
    assert!(reason.starts_with("one two x"), "{reason}");
    assert_eq!(reason.chars().count(), REASON_LIMIT + 1);
}

#[test]
fn health_is_unknown_until_there_are_enough_probes() {
    let found = |state| Health {
        state,
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(9),
        round_trip: Some(Duration::from_micros(310)),
        loss: 0.25,
    };
    assert_eq!(health(found(State::Unknown)), None);
    let reachable = health(found(State::Reachable)).unwrap();
    assert!(reachable.reachable);
    assert_eq!((reachable.rtt_micros, reachable.since), (Some(310), 9));
    assert!((reachable.loss_percent - 25.0).abs() < f64::EPSILON);
    assert!(!health(found(State::Unreachable)).unwrap().reachable);
}

#[test]
fn unusable_record_is_listed_among_the_peers() {
    let mut peers = [(key(7).to_string(), peer(&lease(7), None, false))].into();
    let rejection = Rejection::OutsideNetwork("Network");
    add_rejected(&mut peers, "10.99.0.0-24", &rejection);
    let peers: Vec<_> = peers.into_values().collect();
    let states: Vec<_> = peers.iter().map(|peer| peer.state).collect();
    assert_eq!(states, [PeerState::InKernel, PeerState::NotUsed]);
    assert_eq!(peers[1].reason, Some(rejection.to_string()));
}

#[test]
fn peer_whose_record_became_unusable_keeps_its_state() {
    let mut peers = [(key(7).to_string(), peer(&lease(7), None, false))].into();
    add_rejected(&mut peers, &key(7).to_string(), &Rejection::OutsideNetwork("Network"));
    let peers: Vec<_> = peers.into_values().collect();
    assert_eq!((peers.len(), peers[0].state), (1, PeerState::InKernel));
    let reason = peers[0].reason.as_ref().unwrap();
    assert!(reason.starts_with("the newer record is not used: its subnet"), "{reason}");
}

#[test]
fn times_are_seconds_since_1970() {
    assert_eq!(seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(7)), 7);
}
