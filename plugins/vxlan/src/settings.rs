//! The backend's keys in the network config.

use heddle_sdk::json::Object;
use heddle_sdk::{ConfigError, Family, NetworkConfig, Underlay, vtep};

/// Overhead of VXLAN besides the outer IP header, in bytes: UDP and VXLAN headers, and the inner
/// Ethernet header.
const HEADERS: u32 = 8 + 8 + 14;

/// Longest device name, in bytes.
const MAX_NAME: usize = 15;

/// The keys, with flannel's defaults.
pub(crate) struct Settings {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) gbp: bool,
    pub(crate) learning: bool,
    pub(crate) direct_routing: bool,
    mtu: Option<u32>,
}

impl Settings {
    pub(crate) fn read(config: &NetworkConfig) -> Result<Self, ConfigError> {
        let backend = Object::parse("Backend", &config.backend)?;
        let settings = Self {
            vni: backend.integer("VNI", 0..=vtep::MAX_VNI)?.unwrap_or(1),
            port: backend.port("Port")?.unwrap_or(vtep::DEFAULT_PORT),
            gbp: backend.flag("GBP")?.unwrap_or(false),
            learning: backend.flag("Learning")?.unwrap_or(false),
            direct_routing: backend.flag("DirectRouting")?.unwrap_or(false),
            // As in flannel, 0 selects the default.
            mtu: backend.integer("MTU", 0..=65_535)?.filter(|mtu| *mtu != 0),
        };
        for family in config.families() {
            let device = settings.device(family);
            if device.len() > MAX_NAME {
                let rule = match family {
                    Family::V4 => "at most 9999999",
                    Family::V6 => "at most 9999 with IPv6",
                };
                return Err(backend.error(
                    "VNI",
                    format!(
                        "is {}: expected {rule}, because the device's name {device} may have {MAX_NAME} bytes",
                        settings.vni
                    ),
                ));
            }
            let least = family.least_mtu() + overhead(family);
            if let Some(mtu) = settings.mtu.filter(|mtu| *mtu < least) {
                return Err(backend.error(
                    "MTU",
                    format!("is {mtu}: expected {least} to 65535, the external interface's MTU"),
                ));
            }
        }
        Ok(settings)
    }

    /// Returns the name of a family's device.
    pub(crate) fn device(&self, family: Family) -> String {
        match family {
            Family::V4 => format!("flannel.{}", self.vni),
            Family::V6 => format!("flannel-v6.{}", self.vni),
        }
    }

    /// Returns the MTU of a family's device.
    pub(crate) fn device_mtu(
        &self,
        family: Family,
        underlay: &Underlay,
    ) -> Result<u32, ConfigError> {
        let outer = self.mtu.unwrap_or(underlay.packet_mtu());
        match outer.checked_sub(overhead(family)) {
            Some(mtu) if mtu >= family.least_mtu() => Ok(mtu),
            _ => Err(ConfigError {
                key: "Backend.MTU".into(),
                message: format!(
                    "is not given, and {outer}, the MTU of {}, is too small: expected {} or more",
                    underlay.link,
                    family.least_mtu() + overhead(family)
                ),
            }),
        }
    }
}

/// Returns the difference between the underlay's MTU and the device's.
fn overhead(family: Family) -> u32 {
    family.header_length() + HEADERS
}
