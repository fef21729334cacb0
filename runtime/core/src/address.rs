//! Link-layer addresses and names, and the two address families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4. Always listed before IPv6.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the family of a network.
    pub fn of_network(network: IpNet) -> Self {
        Self::of(network.addr())
    }

    /// Returns the length of an address in bits: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl Family {
    /// Returns the family's directory below `/proc/sys/net`.
    pub const fn sysctl_tree(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// Returns true if an address can be that of a host on a network: not unspecified, loopback,
/// multicast or the limited broadcast. IPv4-mapped IPv6 addresses are judged as the IPv4 address.
pub fn is_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_broadcast = address == IpAddr::from(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}

/// Returns an address as a number. The order of these numbers is the order of the addresses within
/// their family.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Returns true if the address names a single station: neither a group address nor all zeroes.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a MAC address: expected six hexadecimal octets with colons, 3a:8b:71:f2:2e:de"
)]
pub struct InvalidMacAddress(pub String);

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMacAddress(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            // `from_str_radix` alone would accept a sign.
            let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(hex).ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidMacAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// The name of a network device: 1 to 15 bytes, without `/`, `:` and white space, not `.` or `..`
/// (`IFNAMSIZ` in `linux/if.h`, `dev_valid_name` in `net/core/dev.c`).
///
/// Stored inline, so that tens of thousands of routes can name their device without an allocation
/// each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName {
    bytes: [u8; Self::MAX_LENGTH],
    length: u8,
}

impl LinkName {
    /// Length limit of the kernel, in bytes.
    pub const MAX_LENGTH: usize = 15;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        // The bytes were copied whole from a `str`, so they are valid UTF-8.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

/// A text that cannot be the name of a network device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a network device: expected 1 to 15 bytes without `/`, `:` or white space"
)]
pub struct InvalidLinkName(pub String);

impl FromStr for LinkName {
    type Err = InvalidLinkName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let bad = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0;
        if name.is_empty()
            || name.len() > Self::MAX_LENGTH
            || name == "."
            || name == ".."
            || name.bytes().any(bad)
        {
            return Err(InvalidLinkName(name.to_owned()));
        }
        let length = u8::try_from(name.len()).map_err(|_| InvalidLinkName(name.to_owned()))?;
        let mut bytes = [0; Self::MAX_LENGTH];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self { bytes, length })
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_address_parsed_displays_as_written() {
        let mac: MacAddress = "3a:8B:71:f2:2e:de".parse().unwrap();
        assert_eq!(mac.to_string(), "3a:8b:71:f2:2e:de");
    }

    #[test]
    fn mac_address_malformed_is_rejected() {
        for text in
            ["", "3a:8b:71:f2:2e", "3a:8b:71:f2:2e:de:00", "3a:8b:71:f2:2e:+1", "3a8b71f22ede"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(InvalidMacAddress(text.into())), "{text}");
        }
    }

    #[test]
    fn link_name_invalid_for_kernel_is_rejected() {
        assert_eq!("flannel-v6.1".parse::<LinkName>().unwrap().as_str(), "flannel-v6.1");
        for name in ["", ".", "..", "a/b", "a b", "eth0:1", "sixteen-bytes-xx"] {
            assert!(name.parse::<LinkName>().is_err(), "{name}");
        }
    }
}
