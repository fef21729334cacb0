//! Whether the kernel spoils the checksums of VXLAN packets.
//!
//! Linux before 5.7 does, where an outer packet of its own is translated (NAT) and checksums are left for later
//! (ea64d8d6c675, "netfilter: nat: never update the UDP checksum when it's 0"). Heddle's own rules translate no outer
//! packet, but those of kube-proxy did. Distributions have the correction in kernels with older numbers, too, which
//! nobody can tell by the number; so this is a warning.

use heddle_core::address::LinkName;

use crate::report::{Finding, Severity};

/// The first release with the correction.
const CORRECTED: (u32, u32) = (5, 7);

/// Whether a kernel of this release may have the fault.
pub(crate) fn is_affected(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < CORRECTED,
        _ => false,
    }
}

/// `translates`: whether kube-proxy runs here. `deferred`: whether checksums of the device's packets are left for later.
pub(crate) fn check(
    release: &str,
    translates: bool,
    device: LinkName,
    deferred: Option<bool>,
) -> Option<Finding> {
    // If nobody can tell, they are: that is the kernel's default.
    (is_affected(release) && translates && deferred.unwrap_or(true)).then(|| Finding {
        check: "checksum-offload",
        severity: Severity::Warning,
        problem: format!(
            "kube-proxy runs here, and Linux {release} may spoil the checksums of {device}'s packets that it translates"
        ),
        symptom: "Connections from this host to services take 1, 3, 7 … 63 seconds; tcpdump -v on the other host shows `bad \
                  udp cksum`"
            .to_owned(),
        remedy: "Use a kernel of 5.7 or later, or one that has the correction (then ignore this), or let the device compute \
                 its checksums at once:"
            .to_owned(),
        command: Some(format!("ethtool -K {device} tx-checksum-ip-generic off")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::name;
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
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
    fn it_takes_an_old_kernel_and_a_translation_and_the_offload() {
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
