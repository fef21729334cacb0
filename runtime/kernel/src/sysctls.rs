//! Settings of single devices: `/proc/sys/net/<family>/conf/<link>/<name>`.

use std::fs;
use std::path::PathBuf;

use heddle_core::address::Family;
use heddle_core::object::Sysctl;

use crate::error::ApplyError;

/// The setting as it is. `None` where there is none: no such device, or no such setting. A setting of a family that is
/// off is what it should be.
pub(crate) fn read(wanted: &Sysctl) -> Option<Sysctl> {
    if is_off(wanted) {
        return Some(wanted.clone());
    }
    let value = fs::read_to_string(path(wanted)?).ok()?;
    Some(Sysctl { value: value.trim_end().to_owned(), ..wanted.clone() })
}

pub(crate) fn write(sysctl: &Sysctl) -> Result<(), ApplyError> {
    if is_off(sysctl) {
        return Ok(());
    }
    let path = path(sysctl).ok_or(ApplyError::NotASetting)?;
    fs::write(&path, &sysctl.value).map_err(|source| ApplyError::Sysctl { path, source })
}

/// Whether the device is there, but not for the family: IPv6 may be off for the whole host (`ipv6.disable=1`), and is for
/// a device whose MTU is below 1280 (`addrconf_notify` in `net/ipv6/addrconf.c`). IPv4 always has the device.
fn is_off(sysctl: &Sysctl) -> bool {
    let settings = |family: Family| -> PathBuf {
        ["/proc/sys/net", family.sysctl_tree(), "conf", sysctl.link.as_str()].iter().collect()
    };
    sysctl.family == Family::V6 && !settings(Family::V6).exists() && settings(Family::V4).exists()
}

/// The file, by components rather than with dots: names of devices may contain dots. `None` for what is no setting
/// of a single device: `all` and `default` stand beside the devices, and a name may not lead elsewhere.
fn path(sysctl: &Sysctl) -> Option<PathBuf> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let link = sysctl.link.as_str();
    if matches!(link, "all" | "default")
        || sysctl.name.is_empty()
        || !sysctl.name.bytes().all(plain)
    {
        return None;
    }
    let tree = sysctl.family.sysctl_tree();
    Some(["/proc/sys/net", tree, "conf", link, &sysctl.name].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(link: &str, name: &str) -> Sysctl {
        Sysctl {
            link: link.parse().unwrap(),
            family: Family::V6,
            name: name.into(),
            value: "0".into(),
        }
    }

    #[test]
    fn a_device_name_may_contain_dots() {
        assert_eq!(
            path(&setting("flannel-v6.1", "accept_ra")),
            Some("/proc/sys/net/ipv6/conf/flannel-v6.1/accept_ra".into())
        );
    }

    #[test]
    fn nothing_but_one_device_s_setting_is_written() {
        for (link, name) in [
            ("all", "accept_ra"),
            ("default", "accept_ra"),
            ("eth0", ""),
            ("eth0", "../../ip_forward"),
            ("eth0", "a/b"),
        ] {
            let refused = write(&setting(link, name));
            assert!(matches!(refused, Err(ApplyError::NotASetting)), "{link} {name}");
        }
    }
}
