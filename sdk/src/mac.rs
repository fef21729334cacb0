//! MAC addresses.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A MAC address. Its text form is `3a:8b:71:f2:2e:de`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Returns an address that needs no registration: unicast and locally administered (IEEE 802,
    /// clause 8.2), with the other 46 bits as given.
    pub fn locally_administered(mut octets: [u8; 6]) -> Self {
        octets[0] = octets[0] & !0b01 | 0b10;
        Self(octets)
    }

    /// Returns a locally administered address derived from a text: the first octets of its SHA-256.
    pub fn derived(identity: &str) -> Self {
        let hash = Sha256::digest(identity);
        Self::locally_administered([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]])
    }

    /// Returns true if it names a single station: not a group, and not all zeroes.
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

/// Error for a text that is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidMacAddress;

impl fmt::Display for InvalidMacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected six hexadecimal octets with colons, 3a:8b:71:f2:2e:de")
    }
}

impl std::error::Error for InvalidMacAddress {}

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            // `from_str_radix` alone would accept a sign.
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or(InvalidMacAddress)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMacAddress)?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(InvalidMacAddress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_survives_format_and_parse() {
        let mac: MacAddress = "3a:8B:71:f2:2e:de".parse().unwrap();
        assert_eq!(mac.to_string(), "3a:8b:71:f2:2e:de");
    }

    #[test]
    fn address_needs_six_octets_of_two_digits() {
        for text in ["", "3a:8b:71:f2:2e", "3a:8b:71:f2:2e:de:00", "3a:8b:71:f2:2e:+1"] {
            assert_eq!(text.parse::<MacAddress>(), Err(InvalidMacAddress), "{text}");
        }
    }

    #[test]
    fn locally_administered_address_is_unicast() {
        let mac = MacAddress::locally_administered([0xff; 6]);
        assert_eq!(mac.to_string(), "fe:ff:ff:ff:ff:ff");
        assert!(mac.is_unicast());
        assert_eq!(MacAddress::locally_administered([0; 6]).to_string(), "02:00:00:00:00:00");
    }

    #[test]
    fn derived_address_is_hash_of_text() {
        // printf node | sha256sum
        assert_eq!(MacAddress::derived("node").to_string(), "56:5e:a5:38:46:10");
        assert!(MacAddress::derived("").is_unicast());
    }
}
