//! A datagram from the kernel with any number of messages about devices, addresses, neighbours and routes.

#![no_main]
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use heddle_core::address::LinkName;
use heddle_core::diff::{Observation, Scope};
use heddle_core::object::{Object, RouteAction};
use heddle_kernel::{Event, Watcher};
use libfuzzer_sys::fuzz_target;

/// `struct nlmsghdr` (netlink(7)): length, type, flags, sequence number, port.
const HEADER: usize = 16;
const RTM_DELLINK: u16 = 17;

fn scope() -> Scope {
    Scope {
        networks: ["10.244.0.0/16", "fd00::/48"].map(|it| it.parse().expect("a network")).into(),
        granted: vec![],
        reserved: vec![],
        own: vec![],
        links: ["flannel.1".parse().expect("a name")].into(),
        alias: "heddle /coreos.com/network".to_owned(),
    }
}

/// Splits a datagram into its messages, each with a valid length, so that the fuzzer's reach does
/// not depend on it.
fn repaired(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(length) = rest.first_chunk().filter(|_| rest.len() >= HEADER) {
        let length = u32::from_ne_bytes(*length) as usize;
        let length = if (HEADER..=rest.len()).contains(&length) { length } else { rest.len() };
        let mut message = rest[..length].to_vec();
        let length_field = u32::try_from(length).expect("a datagram has less than 4 GiB");
        message[..4].copy_from_slice(&length_field.to_ne_bytes());
        messages.push(message);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// Asserts that the object lies in the scope, as far as that shows from outside. `made` are the
/// devices that were seen as ours.
fn within(seen: &Observation, scope: &Scope, made: &BTreeSet<LinkName>) {
    let managed = |link: &LinkName| scope.links.contains(link) || made.contains(link);
    match &seen.object {
        Object::Link(link) => assert!(seen.ours || managed(&link.name)),
        Object::Address(_) | Object::Neighbour(_) | Object::FdbEntry(_) => {
            assert!(seen.ours && seen.object.link().is_some_and(|link| managed(&link)));
        }
        Object::Route(route) if seen.ours => {
            let on_managed = match route.action {
                RouteAction::Forward { link, .. } => managed(&link),
                // The route may name a device that is not visible.
                RouteAction::Blackhole | RouteAction::Other => true,
            };
            assert!(scope.covers(route.destination) || on_managed);
        }
        Object::Route(_) => {}
        Object::Sysctl(_) => panic!("a setting has no message"),
    }
}

fuzz_target!(|datagram: &[u8]| {
    let scope = scope();
    let mut events = Vec::new();
    Watcher::new(scope.clone()).read(datagram, &mut events);

    let mut watcher = Watcher::new(scope.clone());
    let mut made = BTreeSet::new();
    for message in repaired(datagram) {
        let (mut first, mut echo) = (Vec::new(), Vec::new());
        watcher.read(&message, &mut first);
        for event in &first {
            if let Event::Seen(seen) = event {
                if let (Object::Link(link), true) = (&seen.object, seen.ours) {
                    made.insert(link.name);
                }
                within(seen, &scope, &made);
            }
            assert_ne!(*event, Event::Lost);
        }
        // Reading the same message again yields no event.
        watcher.read(&message, &mut echo);
        if message[4..6] != RTM_DELLINK.to_ne_bytes() {
            assert!(!echo.iter().any(|event| matches!(event, Event::LinkChanged(_))), "{echo:?}");
            assert!(echo.iter().all(|event| first.contains(event)), "{first:?} {echo:?}");
        }
    }
});
