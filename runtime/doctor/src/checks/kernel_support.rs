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
        problem: format!("the kernel makes no VXLAN devices: {refusal}"),
        symptom: "heddled names the device in its log, with the same reason, and does not get ready".to_owned(),
        remedy: "Install or load the kernel's module vxlan (on some systems it is in a package of its own, such as \
                 kernel-modules-extra or linux-modules-extra), or choose the backend udp or vxlan-tun."
            .to_owned(),
        command: Some("modprobe vxlan".to_owned()),
    })
}

/// `opened` is the result of opening the device for creating TUN devices.
pub(crate) fn tun(opened: &io::Result<()>) -> Option<Finding> {
    let error = opened.as_ref().err()?;
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Run heddled as root, and let it have the device: `DeviceAllow=` in its unit, \
                                            `--device /dev/net/tun` for a container."
        }
        _ => "Load the kernel's module tun, or choose a backend of the kernel's: vxlan or host-gw.",
    };
    Some(Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!("{} cannot be opened: {error}", tun::DEVICE),
        symptom: "heddled cannot make its device, and says so in its log and under `packet path` in `/readyz`".to_owned(),
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
        assert!(found.problem.starts_with("/dev/net/tun cannot be opened: "), "{}", found.problem);
        assert_eq!(found.command.as_deref(), Some("modprobe tun"));
        let found = tun(&Err(io::ErrorKind::PermissionDenied.into())).unwrap();
        assert_eq!(found.command, None);
    }
}
