use super::*;
use crate::object::{FdbEntry, Metric, Route, RouteAction};

fn peer(index: u8) -> Owner {
    Owner::Peer(format!("10.244.{index}.0-24").parse().unwrap())
}

fn fdb(mac: u8, destination: &str) -> Object {
    Object::FdbEntry(FdbEntry {
        link: "flannel.1".parse().unwrap(),
        mac: crate::address::MacAddress([2, 0, 0, 0, 0, mac]),
        destination: destination.parse().unwrap(),
    })
}

fn route(destination: &str) -> Object {
    Object::Route(Route {
        metric: Metric::Default,
        destination: destination.parse().unwrap(),
        action: RouteAction::Blackhole,
    })
}

fn plan<const N: usize>(objects: [Object; N]) -> Plan {
    Plan { objects: objects.into() }
}

fn written(written: u64) -> Priority {
    Priority { written, ..Priority::default() }
}

#[test]
fn plan_replaced_touches_only_old_and_new_objects() {
    let mut desired = Desired::default();
    desired.set(peer(1), &written(1), plan([route("10.244.1.0/24"), fdb(1, "192.168.0.1")]));
    desired.set(peer(2), &written(2), plan([route("10.244.2.0/24")]));
    let touched =
        desired.set(peer(1), &written(1), plan([route("10.244.1.0/24"), fdb(3, "192.168.0.1")]));
    let expected = [route("10.244.1.0/24"), fdb(1, "192.168.0.1"), fdb(3, "192.168.0.1")];
    assert_eq!(touched, expected.iter().map(Object::key).collect());
    assert_eq!(desired.len(), 3);
    assert_eq!(desired.get(&fdb(1, "192.168.0.1").key()), None);
}

#[test]
fn older_claim_wins_in_any_order_of_arrival() {
    let (one, two) = (fdb(1, "192.168.0.1"), fdb(1, "192.168.0.2"));
    let claims = [(peer(1), written(9), one.clone()), (peer(2), written(3), two.clone())];
    for order in [[0, 1], [1, 0]] {
        let mut desired = Desired::default();
        for index in order {
            let (owner, priority, object) = &claims[index];
            desired.set(*owner, priority, plan([object.clone()]));
        }
        assert_eq!(desired.get(&one.key()), Some(&two));
        assert_eq!(desired.owner(&one.key()), Some(peer(2)));
        assert_eq!(desired.conflicts(peer(1)).collect::<Vec<_>>(), [(&one.key(), peer(2))]);
        assert_eq!(desired.conflicts(peer(2)).collect::<Vec<_>>(), [(&one.key(), peer(1))]);
        desired.remove(peer(2));
        assert_eq!(desired.get(&one.key()), Some(&one));
        assert_eq!(desired.conflicts(peer(1)).count(), 0);
    }
}

#[test]
fn unchanged_claim_survives_a_rewritten_record() {
    let (one, two) = (fdb(1, "192.168.0.1"), fdb(1, "192.168.0.2"));
    let mut desired = Desired::default();
    desired.set(peer(1), &written(1), plan([one.clone()]));
    desired.set(peer(2), &written(2), plan([two.clone()]));
    desired.set(peer(1), &written(3), plan([one.clone(), route("10.244.1.0/24")]));
    assert_eq!(desired.owner(&one.key()), Some(peer(1)));
    // A changed claim loses its age and ranks last.
    desired.set(peer(1), &written(4), plan([fdb(1, "192.168.0.3")]));
    assert_eq!(desired.owner(&one.key()), Some(peer(2)));
}

#[test]
fn published_mac_wins_over_unpublished_claim() {
    let (one, two) = (fdb(1, "192.168.0.1"), fdb(1, "192.168.0.2"));
    let publishes = Priority { macs: [MacAddress([2, 0, 0, 0, 0, 1])].into(), ..written(2) };
    let mut desired = Desired::default();
    desired.set(peer(1), &written(1), plan([one.clone()]));
    desired.set(peer(2), &publishes, plan([two.clone()]));
    assert_eq!(desired.owner(&one.key()), Some(peer(2)));
    // Of two owners that publish it, the older claim wins.
    desired.set(peer(3), &Priority { written: 3, ..publishes }, plan([one]));
    assert_eq!(desired.owner(&two.key()), Some(peer(2)));
}

#[test]
fn node_claim_wins_over_peers() {
    let (one, two) = (fdb(1, "192.168.0.1"), fdb(1, "192.168.0.2"));
    let publishes = Priority { macs: [MacAddress([2, 0, 0, 0, 0, 1])].into(), written: 0 };
    let mut desired = Desired::default();
    desired.set(peer(1), &publishes, plan([one]));
    desired.set(Owner::Node, &written(9), plan([two.clone()]));
    assert_eq!(desired.owner(&two.key()), Some(Owner::Node));
}

#[test]
fn plan_withdrawn_leaves_nothing() {
    let mut desired = Desired::default();
    desired.set(peer(1), &written(1), plan([route("10.244.1.0/24")]));
    assert_eq!(desired.remove(peer(1)), [route("10.244.1.0/24").key()].into());
    assert!(desired.is_empty() && !desired.contains(peer(1)));
    assert!(desired.remove(peer(1)).is_empty());
}
