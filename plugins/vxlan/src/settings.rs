//! The backend's keys in the network config.

use heddle_sdk::json::Object;
use heddle_sdk::{ConfigError, Family, NetworkConfig, Underlay};

/// The largest VXLAN network identifier: 24 bits (RFC 7348, section 5).
pub(crate) const MAX_VNI: u32 = 0xff_ffff;

/// Where Linux listened before IANA gave VXLAN port 4789, and still listens unless told otherwise (`vxlan_port` in
/// `drivers/net/vxlan/vxlan_core.c`). flannel leaves the choice to the kernel.
const DEFAULT_PORT: u16 = 8472;

/// What is left of an Ethernet MTU inside: outer IP, UDP and VXLAN headers, and the inner Ethernet header.
const OVERHEAD_V4: u32 = 20 + 8 + 8 + 14;
const OVERHEAD_V6: u32 = 40 + 8 + 8 + 14;

/// The smallest MTU that each family works with: RFC 791, section 3.2, and RFC 8200, section 5.
const LEAST_MTU_V4: u32 = 68;
const LEAST_MTU_V6: u32 = 1280;

/// The longest device name.
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
        // As in flannel, 0 leaves the choice of port and MTU open.
        let port = backend.integer("Port", 0..=u32::from(u16::MAX))?.filter(|port| *port != 0);
        let settings = Self {
            vni: backend.integer("VNI", 0..=MAX_VNI)?.unwrap_or(1),
            port: port.map_or(DEFAULT_PORT, |port| port as u16),
            gbp: backend.flag("GBP")?.unwrap_or(false),
            learning: backend.flag("Learning")?.unwrap_or(false),
            direct_routing: backend.flag("DirectRouting")?.unwrap_or(false),
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
            let least = least_mtu(family) + overhead(family);
            if let Some(mtu) = settings.mtu.filter(|mtu| *mtu < least) {
                return Err(backend.error(
                    "MTU",
                    format!("is {mtu}: expected {least} to 65535, the external interface's MTU"),
                ));
            }
        }
        Ok(settings)
    }

    /// The name of a family's device.
    pub(crate) fn device(&self, family: Family) -> String {
        match family {
            Family::V4 => format!("flannel.{}", self.vni),
            Family::V6 => format!("flannel-v6.{}", self.vni),
        }
    }

    /// The MTU of a family's device.
    pub(crate) fn device_mtu(
        &self,
        family: Family,
        underlay: &Underlay,
    ) -> Result<u32, ConfigError> {
        // No packet is longer than 65,535 bytes, though the loopback interface's MTU is.
        let outer = self.mtu.unwrap_or(underlay.mtu.min(65_535));
        match outer.checked_sub(overhead(family)) {
            Some(mtu) if mtu >= least_mtu(family) => Ok(mtu),
            _ => Err(ConfigError {
                key: "Backend.MTU".into(),
                message: format!(
                    "is not given, and {outer}, the MTU of {}, is too small: expected {} or more",
                    underlay.link,
                    least_mtu(family) + overhead(family)
                ),
            }),
        }
    }
}

fn overhead(family: Family) -> u32 {
    match family {
        Family::V4 => OVERHEAD_V4,
        Family::V6 => OVERHEAD_V6,
    }
}

fn least_mtu(family: Family) -> u32 {
    match family {
        Family::V4 => LEAST_MTU_V4,
        Family::V6 => LEAST_MTU_V6,
    }
}
