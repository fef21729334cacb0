//! The backend's keys in the network config.

use heddle_sdk::json::Errors;
use heddle_sdk::{ConfigError, Family, NetworkConfig, Underlay, vtep};

use crate::VxlanBackend;

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
        let backend = config.backend_of::<VxlanBackend>()?;
        let mut errors = Errors::default();
        let vni = errors.note(backend.integer("VNI", 0..=vtep::MAX_VNI)).flatten();
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
        // IPv6, which is last, has the longer names.
        let long = |family: &Family| settings.device(*family).len() > MAX_NAME;
        if let Some(family) = config.families().filter(long).last() {
            let rule = match family {
                Family::V4 => "at most 9999999",
                Family::V6 => "at most 9999 with IPv6",
            };
            let (vni, device) = (settings.vni, settings.device(family));
            errors.add(backend.error(
                "VNI",
                format!(
                    "is {vni}: expected {rule}, because the device's name {device} may have {MAX_NAME} bytes",
                ),
            ));
        }
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

/// Returns the difference between the underlay's MTU and the device's.
fn overhead(family: Family) -> u32 {
    family.header_length() + HEADERS
}
