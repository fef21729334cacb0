//! The backend's keys in the network config.

use heddle_sdk::json::Errors;
use heddle_sdk::{ConfigError, Family, NetworkConfig, Underlay, vtep};

use crate::VxlanBackend;

/// Overhead of VXLAN besides the outer IP header, in bytes: UDP and VXLAN headers, and the inner
/// Ethernet header.
const HEADERS: u32 = 8 + 8 + 14;

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
        let backend = config.backend_of::<VxlanBackend>()?;
        let mut errors = Errors::default();
        let vni = errors.note(backend.integer("VNI", 0..=largest_vni(config))).flatten();
        let port = errors.note(backend.port("Port")).flatten();
        let mut flag = |key| errors.note(backend.flag(key)).flatten().unwrap_or(false);
        let (gbp, learning) = (flag("GBP"), flag("Learning"));
        let direct_routing = flag("DirectRouting");
        // As in flannel, 0 selects the default.
        let mtu = errors.note(backend.integer("MTU", 0..=65_535)).flatten();
        let settings = Self {
            vni: vni.unwrap_or(1),
            port: port.unwrap_or(vtep::DEFAULT_PORT),
            gbp,
            learning,
            direct_routing,
            mtu: mtu.filter(|mtu| *mtu != 0),
        };
        let least = config.families().map(|family| family.least_mtu() + overhead(family)).max();
        let least = least.unwrap_or_default();
        if let Some(mtu) = settings.mtu.filter(|mtu| *mtu < least) {
            errors.add(backend.error(
                "MTU",
                format!("is {mtu}: expected {least} to 65535, the external interface's MTU"),
            ));
        }
        errors.result()?;
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

/// Returns the largest VNI with which the devices' names, `flannel.VNI` and `flannel-v6.VNI`, have
/// the 15 bytes that the kernel allows.
fn largest_vni(config: &NetworkConfig) -> u32 {
    match config.families().last() {
        Some(Family::V6) => 9_999,
        _ => 9_999_999,
    }
}

/// Returns the difference between the underlay's MTU and the device's.
fn overhead(family: Family) -> u32 {
    family.header_length() + HEADERS
}
