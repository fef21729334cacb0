//! A `subnet.env` of an earlier run: flannel's, Heddle's, or any other file at its path.

#![no_main]
#![forbid(unsafe_code)]

use heddle_core::subnet_env::{previous_networks, previous_subnets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let text = String::from_utf8_lossy(text);
    let networks = previous_networks(&text);
    let mut written = format!("{text}\n");
    for network in &networks {
        let name =
            if network.addr().is_ipv4() { "FLANNEL_NETWORK" } else { "FLANNEL_IPV6_NETWORK" };
        written += &format!("{name}={network}\n");
    }
    assert_eq!(previous_networks(&written), networks);
    let found = previous_subnets(&text);
    let Some(key) = found else { return };
    // The result must be a valid lease key.
    assert_eq!(key.to_string().parse(), Ok(key));
    // Written as the emitter writes it, and appended to the existing text, it reads back.
    for (name, subnet) in
        [("FLANNEL_SUBNET", key.subnets().v4), ("FLANNEL_IPV6_SUBNET", key.subnets().v6)]
    {
        let first = subnet.and_then(|subnet| subnet.hosts().next());
        if let (Some(subnet), Some(first)) = (subnet, first) {
            written += &format!("{name}={first}/{}\n", subnet.prefix_len());
        }
    }
    assert_eq!(previous_subnets(&written), Some(key));
});
