//! An operator's file `plugins.toml`.

#![no_main]
#![forbid(unsafe_code)]

use heddle_grant::{Capabilities, Limits, Policy, check_name};
use libfuzzer_sys::fuzz_target;

/// Formats the section `plugin.NAME` that grants exactly this.
fn write(name: &str, granted: &Capabilities, limits: &Limits) -> String {
    // A list of strings has the same syntax in JSON and in TOML.
    fn list<T: ToString>(key: &str, items: &[T]) -> String {
        let items: Vec<_> = items.iter().map(ToString::to_string).collect();
        format!("{key} = {}\n", serde_json::Value::from(items))
    }
    format!(
        "[plugin.{name}]\n{}{}{}{}{}{}[plugin.{name}.limits]\nmemory-mib = {}\ncall-ms = {}\n",
        list("links", &granted.links),
        list("link-kinds", &granted.link_kinds),
        list("routes", &granted.routes),
        list("udp-ports", &granted.udp_ports),
        list("sysctls", &granted.sysctls),
        list("files", &granted.files),
        limits.memory >> 20,
        limits.call.as_millis(),
    )
}

/// Asserts that a grant is possible, covers itself, and survives being written and parsed again.
fn granted(policy: &Policy, name: &str) {
    let (granted, limits) = (policy.grant(name), policy.limits(name));
    assert_eq!(granted.not_granted(&granted), []);
    assert!(!granted.has_port(0));
    assert!((1 << 20..=4096 << 20).contains(&limits.memory));
    assert!((20..=20_000).contains(&limits.call.as_millis()));
    assert!((20..=1000).contains(&limits.packet_call.as_millis()));
    assert!(limits.failures > 0 && limits.log_rate > 0 && limits.peer_objects > 0);
    if let Some(digest) = policy.digest(name) {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        assert!(digest.len() == 64 && digest.bytes().all(lower));
    }
    let text = write(name, &granted, &limits);
    let again = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(again.grant(name), granted);
    assert_eq!((again.limits(name).memory, again.limits(name).call), (limits.memory, limits.call));
}

fuzz_target!(|text: &[u8]| {
    let text = String::from_utf8_lossy(text);
    match Policy::parse(&text) {
        Ok(policy) => {
            let table: toml::Table = text.parse().expect("what was read is TOML");
            let named = table.get("plugin").and_then(toml::Value::as_table);
            for name in named.into_iter().flat_map(toml::Table::keys) {
                assert_eq!(check_name(name), Ok(()));
                granted(&policy, name);
            }
            granted(&policy, "of-which-nothing-is-said");
        }
        Err(error) => {
            assert!(error.starts_with("line ") || error.starts_with("section "), "{error}");
            assert!(!error.contains(char::is_control), "{error}");
        }
    }
});
