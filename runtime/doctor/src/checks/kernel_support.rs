//! Checks that the kernel supports the backend's devices.

use std::io;

use heddle_kernel::TrialError;

use crate::facts::tun;
use crate::report::{Finding, Severity};

const CHECK: &str = "kernel-support";

/// `tried` is the result of creating a VXLAN device. None if it could not be tried.
pub(crate) fn vxlan(tried: &Result<(), TrialError>) -> Option<Finding> {
    let Err(TrialError::Refused(refusal)) = tried else { return None };
    Some(Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!("the kernel cannot create VXLAN devices: {refusal}"),
        symptom: "heddled logs the same reason for its device, and does not become ready".to_owned(),
        remedy: "Install or load the kernel module vxlan (on some systems in a separate package, such as \
                 kernel-modules-extra or linux-modules-extra), or choose the backend udp or vxlan-tun:"
            .to_owned(),
        command: Some("modprobe vxlan".to_owned()),
    })
}

/// `opened` is the result of opening the device for creating TUN devices.
pub(crate) fn tun(opened: &io::Result<()>) -> Option<Finding> {
    let error = opened.as_ref().err()?;
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Run heddled as root, and grant it the device: with `DeviceAllow=` in its unit, \
                                            or `--device /dev/net/tun` for a container."
        }
        _ => {
            "Load the kernel module tun, or choose a backend without a TUN device, vxlan or host-gw:"
        }
    };
    Some(Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!("cannot open {}: {error}", tun::DEVICE),
        symptom: "heddled cannot create its TUN device, and reports it in its log and under `packet path` in `/readyz`".to_owned(),
        remedy: remedy.to_owned(),
        command: (error.kind() != io::ErrorKind::PermissionDenied).then(|| "modprobe tun".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supported_devices_have_no_finding() {
        assert_eq!(vxlan(&Ok(())), None);
        assert_eq!(tun(&Ok(())), None);
        let nowhere = TrialError::Namespace(io::ErrorKind::PermissionDenied.into());
        assert_eq!(vxlan(&Err(nowhere)), None);
    }

    #[test]
    fn missing_module_is_reported() {
        let found = tun(&Err(io::ErrorKind::NotFound.into())).unwrap();
        assert!(found.problem.starts_with("cannot open /dev/net/tun: "), "{}", found.problem);
        assert_eq!(found.command.as_deref(), Some("modprobe tun"));
        let found = tun(&Err(io::ErrorKind::PermissionDenied.into())).unwrap();
        assert_eq!(found.command, None);
    }
}
