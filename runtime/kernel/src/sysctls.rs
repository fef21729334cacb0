//! Sysctls of single devices: `/proc/sys/net/<family>/conf/<link>/<name>`.

use std::fs;
use std::path::PathBuf;

use heddle_core::address::Family;
use heddle_core::object::Sysctl;

use crate::error::ApplyError;

/// Reads the current value. Returns `None` if the device or the sysctl does not exist. If the
/// address family is off for the device, returns the wanted value.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
pub(crate) fn read(wanted: &Sysctl) -> Option<Sysctl> {
    if is_off(wanted) {
        return Some(wanted.clone());
    }
    let value = fs::read_to_string(path(wanted)?).ok()?;
    Some(Sysctl { value: value.trim_end().to_owned(), ..wanted.clone() })
}

/// Writes the value. If the sysctl has it already, as a new device may by its namespace's default, it
/// need not be writable.
pub(crate) fn write(sysctl: &Sysctl) -> Result<(), ApplyError> {
    if read(sysctl).as_ref() == Some(sysctl) {
        return Ok(());
    }
    let path = path(sysctl).ok_or(ApplyError::NotASetting)?;
    fs::write(&path, &sysctl.value).map_err(|source| ApplyError::Sysctl { path, source })
}

/// Returns true if the device exists, but not for the sysctl's family: IPv6 may be off for the
/// whole host (`ipv6.disable=1`), and is off for a device whose MTU is below 1280
/// (`addrconf_notify` in `net/ipv6/addrconf.c`). IPv4 is never off.
fn is_off(sysctl: &Sysctl) -> bool {
    let settings = |family: Family| -> PathBuf {
        ["/proc/sys/net", family.sysctl_tree(), "conf", sysctl.link.as_str()].iter().collect()
    };
    sysctl.family == Family::V6 && !settings(Family::V6).exists() && settings(Family::V4).exists()
}

/// Returns the path of the file, by components rather than with dots: names of devices may contain
/// dots. Returns `None` unless it is a sysctl of a single device: `all` and `default` are
/// directories beside the devices, and a name must not contain a path.
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
    fn sysctl_path_allows_dots_in_device_name() {
        assert_eq!(
            path(&setting("flannel-v6.1", "accept_ra")),
            Some("/proc/sys/net/ipv6/conf/flannel-v6.1/accept_ra".into())
        );
    }

    #[test]
    fn sysctl_write_rejects_paths_outside_one_device() {
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
