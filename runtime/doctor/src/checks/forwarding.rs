//! Checks that IP forwarding is on: the host is the router between its containers and other hosts.

use crate::facts::settings::Setting;
use crate::report::{Finding, Severity};

/// `settings` are the sysctls that must be on.
pub(crate) fn check(settings: &[Setting]) -> Vec<Finding> {
    let off = settings.iter().filter(|setting| setting.value == "0");
    off.map(|setting| Finding {
        check: "ip-forward",
        severity: Severity::Error,
        problem: format!("{} is 0; this host forwards no packets", setting.name),
        symptom:
            "Hosts reach each other over the overlay, but containers on different hosts do not"
                .to_owned(),
        remedy: "Enable it, also permanently in a file below /etc/sysctl.d:".to_owned(),
        command: Some(format!("sysctl -w {}=1", setting.name)),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_forwarding_has_a_remedy() {
        let setting =
            |value: &str| Setting { name: "net.ipv4.ip_forward".into(), value: value.into() };
        assert_eq!(check(&[setting("1")]), []);
        let found = check(&[setting("0")]);
        assert_eq!(found[0].problem, "net.ipv4.ip_forward is 0; this host forwards no packets");
        assert_eq!(found[0].command.as_deref(), Some("sysctl -w net.ipv4.ip_forward=1"));
    }
}
