//! A subnet.env of an earlier run: flannel's, Heddle's, or whatever stands where one is looked for.
#![no_main]

use heddle_core::subnet_env::previous_subnets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let text = String::from_utf8_lossy(text);
    let found = previous_subnets(&text);
    let Some(key) = found else { return };
    // What it says could be a lease's key.
    assert_eq!(key.to_string().parse(), Ok(key));
    // Written as the emitter writes it, and behind what was there already, it reads back.
    let mut written = format!("{text}\n");
    for (name, subnet) in [
        ("FLANNEL_SUBNET", key.v4().map(ipnet::IpNet::V4)),
        ("FLANNEL_IPV6_SUBNET", key.v6().map(ipnet::IpNet::V6)),
    ] {
        let first = subnet.and_then(|subnet| subnet.hosts().next());
        if let (Some(subnet), Some(first)) = (subnet, first) {
            written += &format!("{name}={first}/{}\n", subnet.prefix_len());
        }
    }
    assert_eq!(previous_subnets(&written), Some(key));
});
