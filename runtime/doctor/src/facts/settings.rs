//! Settings below `/proc/sys/net`.

use std::fs;
use std::path::Path;

use heddle_core::address::LinkName;

/// A setting and its value, as sysctl(8) shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// `net.ipv4.ip_forward`, or with slashes where a device's name has a dot in it, as sysctl(8) takes it.
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Reads a setting by its path below `/proc/sys`. `None` where there is none.
pub(crate) fn read(path: &str) -> Option<Setting> {
    let value = fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    let name = if path.contains('.') { path.to_owned() } else { path.replace('/', ".") };
    Some(Setting { name, value: value.trim().to_owned() })
}

/// Reads an IPv4 setting of a device.
pub(crate) fn of_link(link: LinkName, name: &str) -> Option<Setting> {
    read(&format!("net/ipv4/conf/{link}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_sysctl_takes() {
        let setting = of_link("lo".parse().unwrap(), "rp_filter").unwrap();
        assert_eq!(setting.name, "net.ipv4.conf.lo.rp_filter");
        assert!(setting.value.parse::<u8>().is_ok());
        assert_eq!(read("net/ipv4/no/such"), None);
    }
}
