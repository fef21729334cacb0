//! A network config, as stored under `<prefix>/config`.

#![no_main]
#![forbid(unsafe_code)]

use heddle_core::address::Family;
use heddle_core::allocation::{Choice, Claimant, Holders, Holdings, HostMarks, choose, fits};
use heddle_core::config::{ConfigWarning, NetworkConfig, OverlayNetwork};
use heddle_core::family::{InFamily, PerFamily};
use heddle_core::host_network::HostNetwork;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

/// Formats the config as text, with nothing left to defaults.
fn write(config: &NetworkConfig) -> String {
    let backend: Value = serde_json::from_str(&config.backend.json).expect("a backend is JSON");
    let mut members = Map::from_iter([
        ("EnableIPv4".to_owned(), json!(config.networks.v4.is_some())),
        ("EnableIPv6".to_owned(), json!(config.networks.v6.is_some())),
        ("EnableNFTables".to_owned(), json!(config.nftables)),
        ("Backend".to_owned(), backend),
    ]);
    for overlay in &config.networks {
        let prefix = match Family::of_network(overlay.network) {
            Family::V4 => "",
            Family::V6 => "IPv6",
        };
        let OverlayNetwork { network, subnet_length, subnet_min, subnet_max } = overlay;
        members.insert(format!("{prefix}Network"), json!(network));
        members.insert(format!("{prefix}SubnetLen"), json!(subnet_length));
        members.insert(format!("{prefix}SubnetMin"), json!(subnet_min));
        members.insert(format!("{prefix}SubnetMax"), json!(subnet_max));
    }
    Value::from(members).to_string()
}

/// Asserts that a node alone in the cluster gets a subnet, whichever it picks.
fn allocate(config: &NetworkConfig) {
    let id = "a".parse().expect("a node id");
    let claimant = Claimant {
        id: &id,
        public_addresses: PerFamily::NONE,
        previous: None,
        host: &HostNetwork::default(),
        underlay: "eth0".parse().expect("a name"),
        marks: &HostMarks::default(),
        holders: &Holders::new(),
    };
    for pick in [|_: usize| 0, |count: usize| count - 1] {
        match choose(config, &Holdings::default(), &claimant, &mut { pick }) {
            Ok(Choice::Create(key)) => assert!(fits(config, key), "{key}"),
            other => panic!("{other:?}"),
        }
    }
}

fuzz_target!(|text: &[u8]| {
    let warnings = NetworkConfig::warnings(text);
    match NetworkConfig::parse(text) {
        Ok(config) => {
            let families = config.networks.iter().map(InFamily::family);
            assert!(!config.networks.is_empty() && families.is_sorted_by(|a, b| a < b));
            for overlay in &config.networks {
                assert!(overlay.subnet_min <= overlay.subnet_max);
                let capacity = overlay.capacity();
                assert!(capacity.subnets >= 1 && capacity.addresses >= 2, "{capacity}");
                for first in [overlay.subnet_min, overlay.subnet_max] {
                    let subnet = ipnet::IpNet::new(first, overlay.subnet_length);
                    assert!(overlay.fits(subnet.expect("a length that the family has")));
                }
            }
            let kind = &config.backend.kind;
            assert!(!kind.is_empty() && *kind == kind.to_ascii_lowercase());
            assert!(config.backend.unknown_keys(&[]).len() < text.len());
            let again = NetworkConfig::parse(write(&config).as_bytes()).expect("a config again");
            // The rest of the backend section belongs to its plugin; there, a number's last digit
            // may differ after each parse.
            let essence = |it: &NetworkConfig| (it.networks, it.nftables, it.backend.kind.clone());
            assert_eq!(essence(&again), essence(&config));
            allocate(&config);
        }
        Err(errors) => {
            for error in errors {
                let message = error.to_string();
                assert!(message.starts_with('`') || message.starts_with("not a JSON object: "));
            }
        }
    }
    // No key with a meaning is reported as unknown.
    let meant = ["network", "subnetlen", "backend", "enableipv6"];
    assert!(!warnings.iter().any(|warning| match warning {
        ConfigWarning::UnknownKey { key, .. } => meant.contains(&key.to_ascii_lowercase().as_str()),
        _ => false,
    }));
});
