//! Checks that the reverse path filter does not drop packets of peers (`rp_filter` in the kernel's
//! ip-sysctl documentation).
//!
//! In strict mode the kernel drops a packet unless the route back to its source leads through the
//! interface it arrived on. Peers send to this node's public address, so their packets arrive on
//! the underlay, and are dropped if this host's route to them uses another interface. Overlay
//! devices need no check: their packets come from peers' subnets, and the plan contains the routes
//! to those. IPv6 has no such filter.

use std::net::IpAddr;

use heddle_core::address::LinkName;
use heddle_core::text::list;

use crate::facts::settings::Setting;
use crate::report::{Finding, Severity};

/// Value of strict mode; 2 is loose, 0 off.
const STRICT: &str = "1";

/// Number of peers named.
const NAMED: usize = 5;

/// Returns true if the filter is strict, given the settings of all devices and of one: the larger
/// value counts (`IN_DEV_RPFILTER` in `linux/inetdevice.h`).
pub(crate) fn is_strict(settings: &[Setting]) -> bool {
    settings.iter().map(|setting| setting.value.as_str()).max() == Some(STRICT)
}

/// `ways` are the devices of the routes to the peers.
pub(crate) fn check(
    settings: &[Setting],
    underlay: LinkName,
    ways: &[(IpAddr, Option<LinkName>)],
) -> Option<Finding> {
    if !is_strict(settings) {
        return None;
    }
    let elsewhere: Vec<_> = ways
        .iter()
        .filter_map(|(peer, way)| Some((peer, way.filter(|way| *way != underlay)?)))
        .collect();
    let strict = settings.iter().find(|setting| setting.value == STRICT)?;
    let (_, way) = elsewhere.first()?;
    let named = list(elsewhere.iter().take(NAMED).map(|(peer, _)| peer));
    let more = elsewhere.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Some(Finding {
        check: "rp-filter",
        severity: Severity::Error,
        problem: format!(
            "{} = {STRICT} drops packets that arrive on {underlay} from {named}{more}: this host's route there is through {way}",
            strict.name
        ),
        symptom: "No packet from these hosts arrives, although tcpdump shows them; `nstat -az TcpExtIPReversePathFilter` \
                  counts them"
            .to_owned(),
        remedy: format!(
            "Set the filter to loose mode, or choose the interface with --iface {way} if other hosts know this host by its \
             address there:"
        ),
        command: Some(format!("sysctl -w net/ipv4/conf/{underlay}/rp_filter=2")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::name;
    use super::*;

    fn settings(all: &str, underlay: &str) -> Vec<Setting> {
        let setting = |link: &str, value: &str| Setting {
            name: format!("net.ipv4.conf.{link}.rp_filter"),
            value: value.into(),
        };
        vec![setting("all", all), setting("eth0", underlay)]
    }

    fn problem(settings: &[Setting], way: Option<&str>) -> Option<String> {
        let ways = [("192.168.0.99".parse().unwrap(), way.map(name))];
        check(settings, name("eth0"), &ways).map(|finding| finding.problem)
    }

    #[test]
    fn larger_setting_counts() {
        for (all, underlay, strict) in [
            ("0", "0", false),
            ("0", "1", true),
            ("1", "0", true),
            ("2", "1", false),
            ("1", "2", false),
            ("1", "1", true),
        ] {
            assert_eq!(is_strict(&settings(all, underlay)), strict, "{all} {underlay}");
            assert_eq!(problem(&settings(all, underlay), Some("eth1")).is_some(), strict);
        }
    }

    #[test]
    fn strict_filter_without_asymmetry_has_no_finding() {
        assert_eq!(problem(&settings("1", "1"), Some("eth0")), None);
        assert_eq!(problem(&settings("1", "1"), None), None);
        assert_eq!(
            problem(&settings("0", "1"), Some("eth1")).unwrap(),
            "net.ipv4.conf.eth0.rp_filter = 1 drops packets that arrive on eth0 from 192.168.0.99: this host's route there is through eth1"
        );
    }

    #[test]
    fn long_list_of_peers_is_truncated() {
        let ways: Vec<_> =
            (1..=7).map(|n| (IpAddr::from([10, 0, 0, n]), Some(name("eth1")))).collect();
        let problem = check(&settings("1", "1"), name("eth0"), &ways).unwrap().problem;
        assert!(problem.contains("10.0.0.5 and 2 more: "), "{problem}");
    }
}
