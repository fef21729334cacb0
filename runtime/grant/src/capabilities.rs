//! Capabilities: what a plugin may touch besides the routes of the overlay, as requested by its
//! manifest and granted by an operator.
//!
//! Both use the same notation, in JSON in the manifest and in TOML in the operator's file, and are
//! compared by [`Capabilities::not_granted`]. The comparison is conservative: a request that cannot
//! be shown to be covered counts as not granted.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Component, Path};
use std::str::FromStr;

use heddle_core::text::is_visible;
use ipnet::IpNet;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use crate::text::plain;

/// A set of capabilities, requested or granted. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Capabilities {
    /// Names of devices that the plugin may create.
    pub links: Vec<NamePattern>,
    /// Kinds of devices that the plugin may create.
    pub link_kinds: Vec<Kind>,
    /// Destinations of routes outside the overlay, through the plugin's own devices.
    pub routes: Vec<IpNet>,
    /// UDP ports that the plugin's devices may receive at.
    pub udp_ports: Vec<Ports>,
    /// Sysctls of the plugin's own devices, by the last component of their names.
    pub sysctls: Vec<NamePattern>,
    /// Files that the plugin may write, besides those that an operator names with `--emit`.
    pub files: Vec<PathPattern>,
}

/// A kind of network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A VXLAN device.
    Vxlan,
    /// A TUN device, with UDP sockets behind it.
    Tun,
}

/// A pattern for names, such as `flannel.*`: `*` matches any number of characters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NamePattern(String);

/// A pattern for paths: `/run/flannel/` matches everything below it, and `*` matches any number of
/// characters except `/`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathPattern(String);

/// One UDP port, `8472`, or a range of them, `1024-65535`. Never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

/// A text that is not a valid capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCapability {
    /// The text is not a pattern for names.
    #[error(
        "`{0}` is no pattern of names: expected letters, digits, `.`, `-`, `_` and `*`, such as flannel.*"
    )]
    Name(String),
    /// The text is not a pattern for paths.
    #[error(
        "`{0}` is no pattern of paths: expected an absolute path without `..`, such as /run/flannel/*.env, or with a `/` \
         at its end for everything below it"
    )]
    Path(String),
    /// The text is not a range of ports.
    #[error("`{0}` are no UDP ports: expected one from 1 to 65535, or a range, such as 1024-65535")]
    Ports(String),
}

/// One requested capability, as messages and `heddle plugin inspect` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The key, such as `links`.
    pub key: &'static str,
    /// The value, such as `flannel.*`.
    pub value: String,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.value)
    }
}

impl Capabilities {
    /// Returns the default grant for a plugin from a file: devices under Heddle's own names, their
    /// harmless sysctls, the unprivileged ports, and files in the directories of such files.
    pub fn usual() -> Self {
        let name = |pattern: &str| NamePattern(pattern.to_owned());
        let path = |pattern: &str| PathPattern(pattern.to_owned());
        Self {
            links: ["flannel*", "heddle*"].map(name).into(),
            link_kinds: vec![Kind::Vxlan, Kind::Tun],
            routes: Vec::new(),
            udp_ports: vec![Ports(1024..=u16::MAX)],
            sysctls: ["accept_ra", "addr_gen_mode", "autoconf", "disable_ipv6"].map(name).into(),
            files: ["/run/flannel/", "/run/heddle/"].map(path).into(),
        }
    }

    /// Returns every capability in the set.
    pub fn all(&self) -> Vec<Capability> {
        Self::default().lacks(self)
    }

    /// Returns the capabilities in this set that `granted` does not cover.
    pub fn not_granted(&self, granted: &Self) -> Vec<Capability> {
        granted.lacks(self)
    }

    /// Returns the capabilities of `asked` that this set does not cover.
    fn lacks(&self, asked: &Self) -> Vec<Capability> {
        fn missing<T: ToString>(
            key: &'static str,
            asked: &[T],
            granted: impl Fn(&T) -> bool,
        ) -> impl Iterator<Item = Capability> {
            let missing = asked.iter().filter(move |asked| !granted(asked));
            missing.map(move |asked| Capability { key, value: asked.to_string() })
        }
        let within = |net: &IpNet| self.routes.iter().any(|granted| granted.contains(net));
        let ports = |asked: &Ports| {
            let granted = |granted: &Ports| {
                granted.0.contains(asked.0.start()) && granted.0.contains(asked.0.end())
            };
            self.udp_ports.iter().any(granted)
        };
        // A requested `*` is matched only by a granted `*`.
        missing("links", &asked.links, |asked| self.has_link(&asked.0))
            .chain(missing("link-kinds", &asked.link_kinds, |asked| {
                self.link_kinds.contains(asked)
            }))
            .chain(missing("routes", &asked.routes, within))
            .chain(missing("udp-ports", &asked.udp_ports, ports))
            .chain(missing("sysctls", &asked.sysctls, |asked| self.has_sysctl(&asked.0)))
            .chain(missing("files", &asked.files, |asked| self.has_file(&asked.0)))
            .collect()
    }

    /// Returns true if a device may have this name.
    pub fn has_link(&self, name: &str) -> bool {
        self.links.iter().any(|pattern| matches(&pattern.0, name))
    }

    /// Returns true if a device may receive at this port.
    pub fn has_port(&self, port: u16) -> bool {
        self.udp_ports.iter().any(|ports| ports.0.contains(&port))
    }

    /// Returns true if the sysctl of this name may be set.
    pub fn has_sysctl(&self, name: &str) -> bool {
        self.sysctls.iter().any(|pattern| matches(&pattern.0, name))
    }

    /// Returns true if a file may be at this path, which is absolute and without `..`.
    pub fn has_file(&self, path: &str) -> bool {
        self.files.iter().any(|pattern| pattern.matches(path))
    }
}

impl PathPattern {
    /// Returns true if the pattern matches the path, component by component. A pattern that ends
    /// with `/` matches paths with further components.
    fn matches(&self, path: &str) -> bool {
        let (pattern, below) = match self.0.strip_suffix('/') {
            Some(directory) => (directory, true),
            None => (self.0.as_str(), false),
        };
        let mut parts = path.split('/');
        let begins = pattern
            .split('/')
            .all(|pattern| parts.next().is_some_and(|part| matches(pattern, part)));
        begins && parts.next().is_some() == below
    }
}

/// Returns true if the pattern matches the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut literals = pattern.split('*');
    let first = literals.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = literals.next_back() else { return rest.is_empty() };
    // Match each literal as early as possible, which leaves the most text for the rest.
    for literal in literals {
        match rest.split_once(literal) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl TryFrom<String> for NamePattern {
    type Error = InvalidCapability;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
        match !text.is_empty() && text.len() <= 64 && text.chars().all(good) {
            true => Ok(Self(text)),
            false => Err(InvalidCapability::Name(plain(&text))),
        }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = InvalidCapability;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let normal =
            |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let path = Path::new(&text);
        let fits = path.is_absolute()
            && path.components().all(normal)
            && is_visible(&text)
            && text.len() <= 1024;
        match fits {
            true => Ok(Self(text)),
            false => Err(InvalidCapability::Path(plain(&text))),
        }
    }
}

impl FromStr for Ports {
    type Err = InvalidCapability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCapability::Ports(plain(text));
        let port = |text: &str| match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(invalid()),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = port(first)?..=port(last)?;
        if range.is_empty() { Err(invalid()) } else { Ok(Self(range)) }
    }
}

impl<'de> Deserialize<'de> for Ports {
    /// Deserializes a text, or a number for a single port.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Ports;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UDP port, or a range of them such as \"1024-65535\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ports, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Ports, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Ports, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::Tun => "tun",
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests;
