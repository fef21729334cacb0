use heddle_core::interface::usability::{AddressScope as Scope, Usability, usability};

use super::*;

/// Returns the kernel's message for an address of global scope.
fn message(address: &str, length: u8, flags: AddressFlags) -> AddressMessage {
    let address: IpAddr = address.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = length;
    message.header.index = 2;
    message.attributes = vec![AddressAttribute::Address(address), AddressAttribute::Flags(flags)];
    message
}

fn decoded(message: &AddressMessage) -> AddressFacts {
    let (device, facts) = facts(message).unwrap();
    assert_eq!(device, 2);
    facts
}

#[test]
fn flags_without_effect_leave_an_address_usable() {
    for flags in [
        AddressFlags::Permanent,
        AddressFlags::Noprefixroute,
        AddressFlags::Managetempaddr,
        AddressFlags::StablePrivacy,
        AddressFlags::Mcautojoin,
        AddressFlags::Homeaddress,
        AddressFlags::Nodad,
        // As from DHCP or a router: neither permanent nor anything else.
        AddressFlags::empty(),
    ] {
        for (address, length) in [("192.0.2.1", 24), ("2001:db8::1", 64)] {
            let found = decoded(&message(address, length, flags));
            assert_eq!(usability(&found), Usability::Usable, "{address} {flags:?}");
        }
    }
}

#[test]
fn flags_with_effect_are_decoded() {
    let v6 = |flags| decoded(&message("2001:db8::1", 64, flags));
    assert!(v6(AddressFlags::Tentative).tentative);
    assert!(v6(AddressFlags::Optimistic).tentative);
    assert!(v6(AddressFlags::Dadfailed).duplicate);
    assert!(v6(AddressFlags::Deprecated).deprecated);
    assert!(v6(AddressFlags::Secondary).temporary);
    // The same bit means something else in IPv4.
    assert!(!decoded(&message("192.0.2.1", 24, AddressFlags::Secondary)).temporary);
}

#[test]
fn scopes_are_decoded() {
    for (scope, expected) in [
        (AddressScope::Universe, Scope::Global),
        (AddressScope::Site, Scope::Site),
        (AddressScope::Link, Scope::Link),
        (AddressScope::Host, Scope::Host),
        (AddressScope::Nowhere, Scope::Other),
        (AddressScope::Other(100), Scope::Other),
    ] {
        let mut message = message("192.0.2.1", 24, AddressFlags::empty());
        message.header.scope = scope;
        assert_eq!(decoded(&message).scope, expected, "{scope:?}");
    }
}

#[test]
fn other_end_of_a_link_is_not_the_own_address() {
    let mut message = message("198.51.100.9", 32, AddressFlags::Permanent);
    message.attributes.push(AddressAttribute::Local("192.0.2.1".parse().unwrap()));
    let found = decoded(&message);
    assert_eq!(found.address.to_string(), "192.0.2.1");
    assert_eq!(found.peer.unwrap().to_string(), "198.51.100.9");
}

#[test]
fn address_of_another_namespace_is_skipped() {
    let mut message = message("192.0.2.1", 24, AddressFlags::Permanent);
    message.attributes.push(AddressAttribute::TargetNetNsId(1));
    assert_eq!(facts(&message), None);
}
