//! Sysctls below `/proc/sys/net`.

use std::path::Path;

use heddle_core::address::LinkName;

use super::kernel_file;

/// A sysctl and its value, as sysctl(8) shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// `net.ipv4.ip_forward`, or with slashes if a device's name contains a dot, as sysctl(8)
    /// accepts it.
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Reads a sysctl by its path below `/proc/sys`. `None` if it does not exist.
pub(crate) fn read(path: &str) -> Option<Setting> {
    let value = kernel_file(Path::new("/proc/sys").join(path))?;
    let name = if path.contains('.') { path.to_owned() } else { path.replace('/', ".") };
    Some(Setting { name, value: value.trim().to_owned() })
}

/// Reads an IPv4 sysctl of a device.
pub(crate) fn of_link(link: LinkName, name: &str) -> Option<Setting> {
    read(&format!("net/ipv4/conf/{link}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_name_is_accepted_by_sysctl() {
        let setting = of_link("lo".parse().unwrap(), "rp_filter").unwrap();
        assert_eq!(setting.name, "net.ipv4.conf.lo.rp_filter");
        assert!(setting.value.parse::<u8>().is_ok());
        assert_eq!(read("net/ipv4/no/such"), None);
    }
}
