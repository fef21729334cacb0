//! dockerd's options as shell variables, in the format of flannel's `dist/mk-docker-opts.sh`.
//! `heddle docker-opts` writes the same lines from a `subnet.env`.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::str::FromStr;

/// Options by the name of their variable: `DOCKER_OPT_BIP` is `--bip=10.244.8.1/24`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerOptions(BTreeMap<String, String>);

impl DockerOptions {
    /// Prefix of all variables' names.
    pub const PREFIX: &'static str = "DOCKER_OPT_";

    /// Sets the bridge's address with the prefix length of its subnet, from which containers also
    /// get their addresses.
    pub fn bip(&mut self, address: impl Display) {
        self.set("BIP", format!("--bip={address}"));
    }

    /// Makes Docker masquerade unless another program does.
    pub fn ip_masq(&mut self, others_do: bool) {
        self.set("IPMASQ", format!("--ip-masq={}", !others_do));
    }

    /// Sets the MTU of containers' interfaces, in bytes.
    pub fn mtu(&mut self, bytes: impl Display) {
        self.set("MTU", format!("--mtu={bytes}"));
    }

    /// Enables IPv6 for the bridge and for containers, from this subnet. The bridge gets its first
    /// usable address. flannel's script has no such option.
    pub fn ipv6(&mut self, subnet: impl Display) {
        self.set("IPV6", "--ipv6".into());
        self.set("FIXED_CIDR_V6", format!("--fixed-cidr-v6={subnet}"));
    }

    fn set(&mut self, name: &str, option: String) {
        self.0.insert(format!("{}{name}", Self::PREFIX), option);
    }

    /// Formats the lines, in the order of the variables' names. The combined one begins with
    /// `first`, the value that the operator has set already, and two spaces; without such a value
    /// with one space, like flannel's.
    pub fn text(&self, lines: Lines, key: &Key, first: &str) -> String {
        let mut text = String::new();
        if lines != Lines::Combined {
            for (name, option) in &self.0 {
                writeln!(text, "{name}=\"{option}\"").expect("a string takes everything");
            }
        }
        if lines != Lines::Individual {
            let mut combined = first.to_owned();
            if !first.is_empty() {
                combined.push(' ');
            }
            for option in self.0.values() {
                combined.push(' ');
                combined.push_str(option);
            }
            writeln!(text, "{key}=\"{combined}\"").expect("a string takes everything");
        }
        text
    }
}

/// Keeps the existing variables called `DOCKER_OPT_…`, and ignores all others.
impl<'a> FromIterator<(&'a str, &'a str)> for DockerOptions {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        let ours = variables.into_iter().filter(|(name, _)| name.starts_with(Self::PREFIX));
        Self(ours.map(|(name, option)| (name.to_owned(), option.to_owned())).collect())
    }
}

/// Selection of the lines to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// A variable for each option, and the combined one.
    All,
    /// Only a variable for each option.
    Individual,
    /// Only the combined one.
    Combined,
}

impl Lines {
    /// Selects the lines for flannel's flags `-i` and `-c`: both mean the same as neither.
    pub fn chosen(individual: bool, combined: bool) -> Self {
        match (individual, combined) {
            (true, false) => Self::Individual,
            (false, true) => Self::Combined,
            _ => Self::All,
        }
    }
}

/// Name of the combined variable: `DOCKER_OPTS` by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Default for Key {
    fn default() -> Self {
        Self("DOCKER_OPTS".into())
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Error for a text that cannot be the name of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected the name of a variable: letters, digits and `_`, no digit first")
    }
}

impl std::error::Error for InvalidKey {}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if text.is_empty()
            || text.starts_with(|c: char| c.is_ascii_digit())
            || !text.chars().all(allowed)
        {
            return Err(InvalidKey);
        }
        Ok(Self(text.to_owned()))
    }
}
