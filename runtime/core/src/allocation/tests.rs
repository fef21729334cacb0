use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::free::free_subnets;
use super::*;
use crate::family::PerFamily;
use crate::host_network::{Claims, HostAddress, HostRouting, Vital};

fn config(text: &str) -> NetworkConfig {
    NetworkConfig::parse(text.as_bytes()).unwrap()
}

fn lease(key: &str, value: &str) -> Lease {
    Lease::from_value(key.parse().unwrap(), value.as_bytes()).unwrap()
}

/// Chooses a subnet for 192.168.0.72, and always picks the first candidate.
fn choose_among(
    config: &NetworkConfig,
    leases: &[Lease],
    previous: Option<&str>,
) -> Result<Choice, AllocationError> {
    choose_at(&HostNetwork::default(), "192.168.0.72", config, leases, previous)
}

fn choose_at(
    host: &HostNetwork,
    address: &str,
    config: &NetworkConfig,
    leases: &[Lease],
    previous: Option<&str>,
) -> Result<Choice, AllocationError> {
    let made = (1..).zip(leases).map(|(made, lease)| (lease.key, made));
    let holdings = Holdings { taken: made.collect(), leases: leases.to_vec() };
    let claimant = Claimant {
        id: &"me".parse().unwrap(),
        public_addresses: [address, "fd99::1"].map(|it| it.parse::<IpAddr>().unwrap()).into(),
        previous: previous.map(|key| key.parse().unwrap()),
        host,
        underlay: "eth0".parse().unwrap(),
        marks: &HostMarks::default(),
        holders: &Holders::new(),
    };
    choose(config, &holdings, &claimant, &mut |_| 0)
}

fn key(text: &str) -> LeaseKey {
    text.parse().unwrap()
}

const NETWORK: &str = r#"{"Network":"10.244.0.0/16"}"#;

#[test]
fn lease_with_own_address_is_taken_over() {
    let mine = lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72"}"#);
    let other = lease("10.244.8.0-24", r#"{"PublicIP":"192.168.0.71"}"#);
    assert_eq!(
        choose_among(&config(NETWORK), &[other, mine], Some("10.244.7.0-24")),
        Ok(Choice::TakeOver(key("10.244.9.0-24")))
    );
}

#[test]
fn own_lease_that_does_not_fit_is_discarded() {
    let mine = [lease("10.1.9.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#)];
    assert_eq!(
        choose_among(&config(NETWORK), &mine, None),
        Ok(Choice::Discard(key("10.1.9.0-24")))
    );
    let mine = [lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72"}"#)];
    let other = config(r#"{"Network":"10.244.0.0/16","SubnetLen":25}"#);
    assert_eq!(choose_among(&other, &mine, None), Ok(Choice::Discard(key("10.244.9.0-24"))));
}

const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#;

#[test]
fn family_that_still_fits_is_kept() {
    let v6 = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}"#;
    let shorter = DUAL.replace("}", r#","IPv6SubnetLen":60}"#);
    let (v4_alone, v6_alone, both) =
        ("10.244.9.0-24", "0.0.0.0-0&fd00:0:0:9::-64", "10.244.9.0-24&fd00:0:0:9::-64");
    for (config_text, from, to) in [
        (DUAL, v4_alone, "10.244.9.0-24&fd00:0:0:1::-64"),
        (DUAL, v6_alone, "10.244.1.0-24&fd00:0:0:9::-64"),
        (NETWORK, both, v4_alone),
        (v6, both, v6_alone),
        (&shorter, both, "10.244.9.0-24&fd00:0:0:10::-60"),
    ] {
        let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":"fd99::1","NodeID":"me"}"#;
        let mine = [lease(from, value)];
        let expected = Choice::Move { from: key(from), to: key(to) };
        assert_eq!(choose_among(&config(config_text), &mine, None), Ok(expected), "{from}");
    }
}

#[test]
fn full_network_of_an_added_family_is_an_error_and_no_loss() {
    let dual =
        config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/124"}"#);
    let other = |key| lease(key, r#"{"PublicIP":"192.168.0.71","PublicIPv6":"fd99::2"}"#);
    let leases = [
        lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#),
        other("10.244.1.0-24&fd00::-124"),
    ];
    let error = choose_among(&dual, &leases, None).unwrap_err();
    assert!(matches!(error, AllocationError::Exhausted { .. }), "{error}");
}

#[test]
fn own_lease_gives_up_what_an_older_fitting_one_has() {
    let dual = config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
    let ours = "10.244.9.0-24&fd00:0:0:9::-64";
    let mine = || lease(ours, r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#);
    let theirs = |key| lease(key, r#"{"PublicIP":"192.168.0.71"}"#);
    for (leases, choice) in [
        (
            [theirs("10.244.9.0-24&fd00:0:0:8::-64"), mine()],
            Choice::Move { from: key(ours), to: key("10.244.1.0-24&fd00:0:0:9::-64") },
        ),
        ([mine(), theirs("10.244.9.0-24&fd00:0:0:8::-64")], Choice::TakeOver(key(ours))),
        // From before a change of the network config.
        ([theirs("10.244.9.0-24"), mine()], Choice::TakeOver(key(ours))),
        ([theirs("10.244.0.0-20&fd00::-56"), mine()], Choice::TakeOver(key(ours))),
    ] {
        assert_eq!(choose_among(&dual, &leases, None), Ok(choice), "{leases:?}");
    }
}

#[test]
fn reservation_with_one_family_is_taken_over_for_both() {
    let dual = config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
    let reserved = "10.244.8.0-24&fd00:0:0:8::-64";
    let mine = [lease(reserved, r#"{"PublicIP":"192.168.0.72"}"#)];
    assert_eq!(choose_among(&dual, &mine, None), Ok(Choice::TakeOver(key(reserved))));
}

#[test]
fn address_published_by_another_node_is_refused_by_name() {
    let theirs = [lease(
        "10.244.9.0-24",
        r#"{"PublicIP":"192.168.0.72","NodeID":"them","NodeName":"web-2"}"#,
    )];
    assert_eq!(
        choose_among(&config(NETWORK), &theirs, None).unwrap_err().to_string(),
        "public address 192.168.0.72 is already published by web-2 (node id them) at 192.168.0.72 in lease \
         10.244.9.0-24; give this node another one (--iface, --public-ip), or release that lease if its node is gone: \
         heddle lease release 10.244.9.0/24"
    );
}

#[test]
fn lease_with_own_id_precedes_others_with_own_address() {
    let config = config(NETWORK);
    for other in [
        lease("10.244.3.0-24", r#"{"PublicIP":"192.168.0.72"}"#),
        lease("10.244.3.0-25", r#"{"PublicIP":"192.168.0.72"}"#),
        lease("10.244.3.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"thief"}"#),
    ] {
        let ours = lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#);
        let choice = choose_among(&config, &[other, ours.clone()], None);
        assert_eq!(choice, Ok(Choice::TakeOver(ours.key)));
    }
}

/// Chooses a subnet for a host that also has 192.168.0.73 and a VXLAN device.
fn choose_asked(leases: &[Lease], asked: &[(&str, Holder)]) -> Result<Choice, AllocationError> {
    let made = (1..).zip(leases).map(|(made, lease)| (lease.key, made));
    let holdings = Holdings { taken: made.collect(), leases: leases.to_vec() };
    let addresses = ["192.168.0.72", "192.168.0.73"].map(|it| it.parse().unwrap());
    let macs = ["02:00:00:00:00:01".parse().unwrap()].into();
    let claimant = Claimant {
        id: &"me".parse().unwrap(),
        public_addresses: [addresses[0]].into(),
        previous: None,
        host: &HostNetwork::default(),
        underlay: "eth0".parse().unwrap(),
        marks: &HostMarks { addresses: addresses.into(), macs },
        holders: &asked.iter().map(|(text, holder)| (key(text), *holder)).collect(),
    };
    choose(&config(NETWORK), &holdings, &claimant, &mut |_| 0)
}

#[test]
fn lease_with_own_id_is_kept_at_another_address_of_the_host() {
    for value in [
        r#"{"PublicIP":"192.168.0.73","NodeID":"me"}"#,
        r#"{"PublicIP":"203.0.113.9","BackendData":{"VtepMAC":"02:00:00:00:00:01"},"NodeID":"me"}"#,
    ] {
        let choice = choose_asked(&[lease("10.244.9.0-24", value)], &[]);
        assert_eq!(choice, Ok(Choice::TakeOver(key("10.244.9.0-24"))), "{value}");
    }
}

#[test]
fn holder_of_the_own_id_elsewhere_is_asked() {
    let leases = [lease("10.244.9.0-24", r#"{"PublicIP":"203.0.113.9","NodeID":"me"}"#)];
    let taken = key("10.244.9.0-24");
    for (asked, choice) in [
        (&[][..], Choice::Ask(taken)),
        (&[("10.244.9.0-24", Holder::Gone)], Choice::TakeOver(taken)),
        (&[("10.244.9.0-24", Holder::Alive)], Choice::Create(key("10.244.1.0-24"))),
    ] {
        assert_eq!(choose_asked(&leases, asked), Ok(choice), "{asked:?}");
    }
}

#[test]
fn holder_of_the_own_address_is_asked() {
    let leases = [lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"them"}"#)];
    let taken = key("10.244.9.0-24");
    assert_eq!(choose_asked(&leases, &[]), Ok(Choice::Ask(taken)));
    let gone = [("10.244.9.0-24", Holder::Gone)];
    assert_eq!(choose_asked(&leases, &gone), Ok(Choice::TakeOver(taken)));
    let error = choose_asked(&leases, &[("10.244.9.0-24", Holder::Alive)]).unwrap_err();
    assert!(error.to_string().contains("and that node keeps its lease"), "{error}");
}

#[test]
fn nodes_that_swap_addresses_keep_their_subnets() {
    let theirs = lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"them"}"#);
    let gone = ("10.244.9.0-24", Holder::Gone);
    for address in ["192.168.0.73", "203.0.113.9"] {
        let value = format!(r#"{{"PublicIP":"{address}","NodeID":"me"}}"#);
        let leases = [theirs.clone(), lease("10.244.3.0-24", &value)];
        assert_eq!(choose_asked(&leases, &[]), Ok(Choice::Ask(key("10.244.9.0-24"))));
        let asked = [gone, ("10.244.3.0-24", Holder::Gone)];
        assert_eq!(choose_asked(&leases, &asked), Ok(Choice::TakeOver(key("10.244.3.0-24"))));
    }
}

#[test]
fn previous_subnet_free_and_fitting_is_kept() {
    let config = config(NETWORK);
    assert_eq!(
        choose_among(&config, &[], Some("10.244.77.0-24")),
        Ok(Choice::Create(key("10.244.77.0-24")))
    );
    let taken = [lease("10.244.77.0-24", r#"{"PublicIP":"192.168.0.71"}"#)];
    assert_eq!(
        choose_among(&config, &taken, Some("10.244.77.0-24")),
        Ok(Choice::Create(key("10.244.1.0-24")))
    );
    assert_eq!(
        choose_among(&config, &[], Some("10.1.77.0-24")),
        Ok(Choice::Create(key("10.244.1.0-24")))
    );
}

#[test]
fn first_and_taken_subnets_are_never_allocated() {
    let taken = [
        lease("10.244.1.0-24", r#"{"PublicIP":"192.168.0.1"}"#),
        lease("10.244.2.0-23", r#"{"PublicIP":"192.168.0.2"}"#),
        lease("10.244.4.128-25", r#"{"PublicIP":"192.168.0.3"}"#),
    ];
    assert_eq!(
        choose_among(&config(NETWORK), &taken, None),
        Ok(Choice::Create(key("10.244.5.0-24")))
    );
}

/// Returns a host on 192.168.0.0/24 with a bridge and two more networks, and an etcd endpoint
/// inside the overlay.
fn busy_host() -> HostNetwork {
    let address = |link: &str, network: &str| HostAddress {
        link: link.parse().unwrap(),
        network: network.parse().unwrap(),
        up: true,
        prefix_route: true,
    };
    let addresses = [
        address("eth0", "10.244.3.1/24"),
        address("lan0", "10.244.2.1/26"),
        address("docker0", "10.244.77.1/24"),
    ];
    let routing = HostRouting { addresses: addresses.into(), ..HostRouting::default() };
    let claims = Claims { overlay: vec!["10.244.0.0/16".parse().unwrap()], ..Claims::default() };
    let vital = Vital { store: ["10.244.4.9".parse().unwrap()].into(), ..Vital::default() };
    HostNetwork::new(&claims, &routing, vital)
}

fn choose_on(
    host: &HostNetwork,
    config: &NetworkConfig,
    leases: &[Lease],
    previous: Option<&str>,
) -> Result<Choice, AllocationError> {
    choose_at(host, "10.244.3.1", config, leases, previous)
}

#[test]
fn subnet_with_host_or_peer_address_is_not_chosen() {
    let (host, config) = (busy_host(), config(NETWORK));
    let peer = [lease("10.244.1.0-24", r#"{"PublicIP":"10.244.5.9"}"#)];
    // Subnets 2 to 4 are the host's; 5 contains a peer's address.
    assert_eq!(choose_on(&host, &config, &peer, None), Ok(Choice::Create(key("10.244.6.0-24"))));
}

#[test]
fn previous_subnet_on_bridge_is_kept_and_on_underlay_dropped() {
    let (host, config) = (busy_host(), config(NETWORK));
    assert_eq!(
        choose_on(&host, &config, &[], Some("10.244.77.0-24")),
        Ok(Choice::Create(key("10.244.77.0-24")))
    );
    for previous in ["10.244.3.0-24", "10.244.4.0-24"] {
        let choice = choose_on(&host, &config, &[], Some(previous));
        assert_eq!(choice, Ok(Choice::Create(key("10.244.1.0-24"))));
    }
}

#[test]
fn own_lease_inside_underlay_is_discarded() {
    let (host, config) = (busy_host(), config(NETWORK));
    let own = |key| [lease(key, r#"{"PublicIP":"10.244.3.1","NodeID":"me"}"#)];
    for (lease, choice) in [
        ("10.244.77.0-24", Choice::TakeOver(key("10.244.77.0-24"))),
        ("10.244.3.0-24", Choice::Discard(key("10.244.3.0-24"))),
        ("10.244.4.0-24", Choice::Discard(key("10.244.4.0-24"))),
    ] {
        assert_eq!(choose_on(&host, &config, &own(lease), None), Ok(choice));
    }
}

#[test]
fn network_covered_by_host_networks_is_an_error_naming_them() {
    let config = config(r#"{"Network":"10.244.2.0/23","SubnetLen":26}"#);
    let error = choose_on(&busy_host(), &config, &[], None);
    let taken = ["10.244.2.64-26", "10.244.2.128-26", "10.244.2.192-26"];
    assert!(matches!(error, Ok(Choice::Create(_))), "{error:?}");
    let taken = taken.map(|key| lease(key, r#"{"PublicIP":"192.168.0.9"}"#));
    let error = choose_on(&busy_host(), &config, &taken, None).unwrap_err().to_string();
    assert!(error.contains("(10.244.2.0/26, 10.244.3.0/24)"), "{error}");
}

#[test]
fn families_are_chosen_independently() {
    let dual = config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
    let taken = [lease("10.244.1.0-24", r#"{"PublicIP":"192.168.0.1"}"#)];
    assert_eq!(
        choose_among(&dual, &taken, None),
        Ok(Choice::Create(key("10.244.2.0-24&fd00:0:0:1::-64")))
    );
}

#[test]
fn full_network_is_an_error_with_its_range() {
    let config = config(r#"{"Network":"10.1.0.0/28"}"#);
    let full: &[&str] = &["10.1.0.4-30", "10.1.0.8-30", "10.1.0.12-30"];
    // One mistyped key is enough to exhaust the network.
    for (keys, widest) in [(full, "10.1.0.4-30"), (&["10.1.0.4-30", "10.1.0.0-28"], "10.1.0.0-28")]
    {
        let lease = |key: &&str| lease(key, r#"{"PublicIP":"192.168.0.1"}"#);
        let taken: Vec<_> = keys.iter().map(lease).collect();
        assert_eq!(
            choose_among(&config, &taken, None).unwrap_err().to_string(),
            format!(
                "no free /30 between 10.1.0.4 and 10.1.0.12: every subnet of 10.1.0.0/28 is leased \
                 (the widest lease is {widest}); leases of nodes that are gone end a day after their last renewal"
            )
        );
    }
}

#[test]
fn free_subnets_at_end_of_address_space_terminate() {
    let config = config(
        r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::/0","IPv6SubnetLen":126,
            "IPv6SubnetMin":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff4"}"#,
    );
    let overlay = &config.networks.v6.unwrap();
    assert_eq!(free_subnets(overlay, std::iter::empty()).len(), 3);
    assert_eq!(free_subnets(overlay, ["ffff::/16".parse().unwrap()].into_iter()), []);
}

proptest! {
    #[test]
    fn chosen_subnet_is_free_and_fits(
        taken in prop::collection::btree_set((0u32..1 << 16, 17u8..=30), 0..300),
        pick in 0usize..CANDIDATES,
    ) {
        let config = config(NETWORK);
        let taken: BTreeMap<LeaseKey, u64> = taken
            .into_iter()
            .filter_map(|(host, length)| {
                let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + host);
                let subnet = IpNet::new(address.into(), length).ok()?;
                Some((LeaseKey::new([subnet].into())?, 1))
            })
            .collect();
        let holdings = Holdings { taken: taken.clone(), leases: vec![] };
        let claimant = Claimant {
            id: &"me".parse().unwrap(),
            public_addresses: PerFamily::NONE,
            previous: None,
            host: &HostNetwork::default(),
            underlay: "eth0".parse().unwrap(),
            marks: &HostMarks::default(),
            holders: &Holders::new(),
        };
        match choose(&config, &holdings, &claimant, &mut |count| pick % count) {
            Ok(Choice::Create(key)) => {
                prop_assert!(fits(&config, key));
                prop_assert!(!taken.keys().any(|other| overlap(*other, key)));
            }
            Err(AllocationError::Exhausted { .. }) => {
                for index in 1u8..=255 {
                    let key: LeaseKey = format!("10.244.{index}.0-24").parse().unwrap();
                    prop_assert!(taken.keys().any(|other| overlap(*other, key)));
                }
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
