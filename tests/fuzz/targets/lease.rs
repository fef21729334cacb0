//! A record under `<prefix>/subnets/`: the key, a line feed, the value.

#![no_main]
#![forbid(unsafe_code)]

use std::time::Instant;

use heddle_core::config::NetworkConfig;
use heddle_core::lease::{
    Age, BACKEND_DATA_LIMIT, BACKEND_TYPE_LIMIT, Lease, LeaseKey, NODE_NAME_LIMIT, Record, Unread,
    VALUE_LIMIT,
};
use heddle_core::peers::{Change, Delta, Footprint, Peers};
use libfuzzer_sys::fuzz_target;

/// This node's own key.
const OWN: &str = "10.244.8.0-24&fd00:0:0:8::-64";
const CONFIG: &[u8] = br#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#;

/// Longest reason for rejecting a record, in bytes.
const LONGEST_REASON: usize = 1000;

/// Asserts that the record is either accepted as a peer or rejected, and never taken for the node's
/// own.
fn as_peer(key: &str, value: &[u8]) {
    let config = NetworkConfig::parse(CONFIG).expect("a config");
    let mut peers = Peers::new(config, OWN.parse().expect("a key"));
    let unread = Unread::of_length(value.len());
    let record = Record { key, value, unread, age: Age::default() };
    // A store without this node's own lease is not trusted about deletions.
    let now = Instant::now();
    let own = br#"{"PublicIP":"192.168.0.1"}"#;
    let own = Record { key: OWN, value: own, unread: None, age: Age::default() };
    peers.update([Change::Put(own)], now);
    let mut listed = peers.clone();
    let delta = peers.update([Change::Put(record)], now);
    let said = delta.changed.len() + delta.rejected.len() + usize::from(delta.own);
    assert_eq!((said, delta.removed.len()), (1, 0));
    assert_eq!(peers.len(), delta.changed.len());
    for (_, rejection) in peers.rejected() {
        assert!(rejection.to_string().len() < LONGEST_REASON);
    }
    // A list of the two is no different.
    listed.begin_snapshot();
    for record in [own, record] {
        listed.add_to_snapshot(&record);
    }
    let from_list = listed.end_snapshot(now);
    assert_eq!(
        (from_list.changed, from_list.rejected),
        (delta.changed.clone(), delta.rejected.clone())
    );
    assert!(listed.leases().eq(peers.leases()));
    for lease in peers.leases() {
        assert!(key != OWN && lease.key.to_string() == key && !lease.families.is_empty());
        assert_eq!(peers.standing(lease.key).macs, lease.published_macs());
        Footprint::of([lease]);
    }
    let again = peers.update([Change::Put(record)], now);
    assert_eq!(again, Delta { own: delta.own, ..Delta::default() });
    let gone = peers.update([Change::Delete(key)], now);
    assert_eq!(gone.removed, delta.changed);
    assert!(peers.is_empty() && peers.rejected().next().is_none());
}

/// Asserts that no field of a lease exceeds its limit.
fn within_bounds(lease: &Lease) {
    let name = lease.node_name.as_ref().map_or(0, |name| name.chars().count());
    assert!(name <= NODE_NAME_LIMIT);
    assert!(lease.backend_type.as_ref().map_or(0, String::len) <= BACKEND_TYPE_LIMIT);
    for data in lease.families.iter().filter_map(|family| family.backend_data.as_ref()) {
        assert!(data.len() <= BACKEND_DATA_LIMIT);
    }
}

fuzz_target!(|record: &[u8]| {
    let mut parts = record.splitn(2, |byte| *byte == b'\n');
    let key = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let value = parts.next().unwrap_or_default();
    as_peer(&key, value);
    let key: LeaseKey = match key.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control));
            return;
        }
    };
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(LeaseKey::new(key.subnets()), Some(key));
    match Lease::from_value(key, value) {
        Ok(lease) => {
            within_bounds(&lease);
            assert!(value.len() <= VALUE_LIMIT);
            let written = lease.to_value();
            let read = Lease::from_value(key, written.as_bytes());
            assert_eq!(read.as_ref(), Ok(&lease), "{written}");
            assert_eq!(lease.to_value(), written);
            assert!(!lease.owner().contains(char::is_control));
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
