//! Checks for a kernel bug that corrupts the checksums of VXLAN packets.
//!
//! Linux before 5.7 corrupts them if NAT applies to an outer packet of its own while checksum
//! offload is on (ea64d8d6c675, "netfilter: nat: never update the UDP checksum when it's 0").
//! Heddle's own rules translate no outer packet, but those of kube-proxy did. Distributions have
//! backported the fix to older versions, which the version number does not show; so this is a
//! warning.

use heddle_core::address::LinkName;

use crate::report::{Finding, Severity};

/// First release with the fix.
const CORRECTED: (u32, u32) = (5, 7);

/// Returns true if a kernel of this release may have the bug.
pub(crate) fn is_affected(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < CORRECTED,
        _ => false,
    }
}

/// `translates` is true if kube-proxy runs here, `deferred` if checksum offload is on for the
/// device.
pub(crate) fn check(
    release: &str,
    translates: bool,
    device: LinkName,
    deferred: Option<bool>,
) -> Option<Finding> {
    // If unknown, the offload counts as on, which is the kernel's default.
    (is_affected(release) && translates && deferred.unwrap_or(true)).then(|| Finding {
        check: "checksum-offload",
        severity: Severity::Warning,
        problem: format!(
            "kube-proxy runs here, and Linux {release} may corrupt the checksums of {device}'s packets when it translates their addresses"
        ),
        symptom: "Connections from this host to services take 1, 3, 7 … 63 seconds; tcpdump -v on the other host shows `bad \
                  udp cksum`"
            .to_owned(),
        remedy: "Upgrade the kernel to 5.7 or later, ignore this if your kernel has the fix backported, or disable checksum \
                 offload for the device:"
            .to_owned(),
        command: Some(format!("ethtool -K {device} tx-checksum-ip-generic off")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::name;
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        for (release, affected) in [
            ("3.10.0-1160.el7.x86_64", true),
            ("5.4.0-42-generic", true),
            ("5.6.19", true),
            ("5.7.0", false),
            ("5.10.0-30-amd64", false),
            ("6.1.0-18-amd64", false),
            ("10.0", false),
            ("unknown", false),
        ] {
            assert_eq!(is_affected(release), affected, "{release}");
        }
    }

    #[test]
    fn finding_needs_old_kernel_and_nat_and_offload() {
        let check = |release, translates, deferred| {
            check(release, translates, name("flannel.1"), deferred).is_some()
        };
        assert!(check("5.4.0", true, Some(true)));
        assert!(check("5.4.0", true, None));
        assert!(!check("5.4.0", true, Some(false)));
        assert!(!check("5.4.0", false, Some(true)));
        assert!(!check("6.1.0", true, Some(true)));
    }
}
