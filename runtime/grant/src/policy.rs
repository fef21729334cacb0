//! The operator's policy for plugins: the file `plugins.toml`.
//!
//! ```toml
//! [limits]                     # of every plugin
//! call-ms = 2000
//!
//! [plugin.wireguard]           # of the one with this name
//! sha256 = "5e0c…"             # this component and no other
//! links = ["wg*"]              # in place of the usual ones: each key by itself
//! udp-ports = [51820]
//!
//! [plugin.wireguard.limits]
//! memory-mib = 128
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_files::{ReadError, RegularFile, TrustError};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use crate::capabilities::{Capabilities, Kind, NamePattern, PathPattern, Ports};
use crate::limits::Limits;
use crate::name::check_name;
use crate::text::plain;

/// Size limit of the file, in bytes. One line for each of a thousand plugins takes a tenth of that.
const FILE_LIMIT: u64 = 1 << 20;

/// The operator's policy for plugins. The default grants [`Capabilities::usual`] and the default
/// [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    limits: LimitsTable,
    plugin: BTreeMap<String, PluginTable>,
}

/// An error in the policy file. Names the line, the key and what would be accepted.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .file.display())]
pub struct PolicyError {
    /// Path of the file.
    pub file: PathBuf,
    /// The error.
    pub reason: String,
}

/// The section of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct PluginTable {
    sha256: Option<Sha256>,
    links: Option<Vec<NamePattern>>,
    link_kinds: Option<Vec<Kind>>,
    routes: Option<Vec<IpNet>>,
    udp_ports: Option<Vec<Ports>>,
    sysctls: Option<Vec<NamePattern>>,
    files: Option<Vec<PathPattern>>,
    limits: LimitsTable,
}

/// A SHA-256 in hexadecimal digits, in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sha256(String);

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(de::Error::custom(
                "expected the SHA-256 of the component, 64 hexadecimal digits, as `heddle plugin inspect` shows it",
            )),
        }
    }
}

/// A number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounded<const LEAST: u32, const MOST: u32>(u32);

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Bounded<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const { assert!(LEAST <= MOST) };
        let number = i64::deserialize(deserializer)?;
        match u32::try_from(number) {
            Ok(number) if (LEAST..=MOST).contains(&number) => Ok(Self(number)),
            _ => Err(de::Error::custom(format_args!("{number}: expected {LEAST} to {MOST}"))),
        }
    }
}

/// Limits that override the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct LimitsTable {
    memory_mib: Option<Bounded<1, 4096>>,
    // Longer calls would make the daemon look hung.
    call_ms: Option<Bounded<20, 20_000>>,
    packet_call_ms: Option<Bounded<20, 1000>>,
    answer_mib: Option<Bounded<1, 256>>,
    node_objects: Option<Bounded<1, 100_000>>,
    peer_objects: Option<Bounded<1, 10_000>>,
    files: Option<Bounded<1, 1000>>,
    file_kib: Option<Bounded<1, 65_536>>,
    log_burst: Option<Bounded<1, 10_000>>,
    log_rate: Option<Bounded<1, 10_000>>,
    failures: Option<Bounded<1, 10_000>>,
    suspension_s: Option<Bounded<1, 86_400>>,
}

impl LimitsTable {
    /// Overrides the limits that are set here.
    fn apply(&self, limits: &mut Limits) {
        fn set<T, const LEAST: u32, const MOST: u32>(
            limit: &mut T,
            given: Option<Bounded<LEAST, MOST>>,
            unit: impl Fn(u32) -> T,
        ) {
            if let Some(Bounded(number)) = given {
                *limit = unit(number);
            }
        }
        let count = |number| number as usize;
        let milliseconds = |number| Duration::from_millis(u64::from(number));
        set(&mut limits.memory, self.memory_mib, |mib| (mib as usize) << 20);
        set(&mut limits.call, self.call_ms, milliseconds);
        set(&mut limits.packet_call, self.packet_call_ms, milliseconds);
        set(&mut limits.answer, self.answer_mib, |mib| (mib as usize) << 20);
        set(&mut limits.node_objects, self.node_objects, count);
        set(&mut limits.peer_objects, self.peer_objects, count);
        set(&mut limits.files, self.files, count);
        set(&mut limits.file, self.file_kib, |kib| (kib as usize) << 10);
        set(&mut limits.log_burst, self.log_burst, |lines| lines);
        set(&mut limits.log_rate, self.log_rate, |lines| lines);
        set(&mut limits.failures, self.failures, count);
        set(&mut limits.suspension, self.suspension_s, |seconds| {
            Duration::from_secs(u64::from(seconds))
        });
    }
}

impl Policy {
    /// The default path of the file.
    pub const DEFAULT_FILE: &str = "/etc/heddle/plugins.toml";

    /// Reads a policy file. The default file may be missing.
    ///
    /// # Errors
    ///
    /// The file cannot be read or parsed.
    pub fn read(file: &Path) -> Result<Self, PolicyError> {
        Self::read_if(file, |_| Ok(()))
    }

    /// Reads a policy file that grants something to code that is about to run. The default file may
    /// be missing.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and if another user could have written the file.
    pub fn read_trusted(file: &Path) -> Result<Self, PolicyError> {
        Self::read_if(file, RegularFile::vouch)
    }

    fn read_if(
        file: &Path,
        admit: impl FnOnce(&RegularFile) -> Result<(), TrustError>,
    ) -> Result<Self, PolicyError> {
        let failed = |reason| PolicyError { file: file.to_owned(), reason };
        let unreadable = |error: ReadError| failed(format!("cannot be read: {}", error.reason));
        let open = match RegularFile::open(file) {
            Err(error) if error.is_not_found() && file == Path::new(Self::DEFAULT_FILE) => {
                return Ok(Self::default());
            }
            opened => opened.map_err(unreadable)?,
        };
        admit(&open).map_err(|error| failed(format!("cannot be used: {error}")))?;
        let text = open.read_text(FILE_LIMIT).map_err(unreadable)?;
        Self::parse(&text).map_err(failed)
    }

    /// Parses the text of a policy file.
    ///
    /// # Errors
    ///
    /// The line, the error in it and what would be accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or(text);
                (before.matches('\n').count() + 1, text.lines().nth(before.matches('\n').count()))
            });
            let message = plain(error.message());
            match line {
                Some((number, line)) => {
                    let line = plain(line.unwrap_or_default());
                    format!("line {number} (`{line}`): {message}")
                }
                None => message,
            }
        })?;
        match policy.plugin.keys().find_map(|name| check_name(name).err()) {
            Some(error) => Err(format!("section `plugin`: {error}")),
            None => Ok(policy),
        }
    }

    /// Returns the capabilities that a plugin from a file is granted.
    pub fn grant(&self, name: &str) -> Capabilities {
        let mut granted = Capabilities::usual();
        if let Some(table) = self.plugin.get(name).cloned() {
            let PluginTable { links, link_kinds, routes, udp_ports, sysctls, files, .. } = table;
            let usual = granted;
            granted = Capabilities {
                links: links.unwrap_or(usual.links),
                link_kinds: link_kinds.unwrap_or(usual.link_kinds),
                routes: routes.unwrap_or(usual.routes),
                udp_ports: udp_ports.unwrap_or(usual.udp_ports),
                sysctls: sysctls.unwrap_or(usual.sysctls),
                files: files.unwrap_or(usual.files),
            };
        }
        granted
    }

    /// Returns the resource limits of a plugin.
    pub fn limits(&self, name: &str) -> Limits {
        let mut limits = Limits::default();
        self.limits.apply(&mut limits);
        if let Some(table) = self.plugin.get(name) {
            table.limits.apply(&mut limits);
        }
        limits
    }

    /// Returns the SHA-256 that the component of this name must have, in lower-case hexadecimal
    /// digits, if it is pinned.
    pub fn digest(&self, name: &str) -> Option<&str> {
        let table = self.plugin.get(name)?;
        table.sha256.as_ref().map(|digest| digest.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Policy::parse(text).unwrap_err()
    }

    #[test]
    fn empty_policy_grants_the_defaults() {
        let policy = Policy::parse("").unwrap();
        assert_eq!(policy.grant("x"), Capabilities::usual());
        assert_eq!(policy.limits("x"), Limits::default());
        assert_eq!(policy.digest("x"), None);
    }

    #[test]
    fn plugin_section_applies_to_that_plugin_only() {
        let digest = "AB".repeat(32);
        let text = format!(
            "[limits]\ncall-ms = 2000\nlog-rate = 7\n\
             [plugin.wg]\nsha256 = '{digest}'\nlinks = ['wg*']\nudp-ports = [51820, '4000-4001']\nsysctls = []\n\
             [plugin.wg.limits]\nmemory-mib = 128\nlog-rate = 9\n"
        );
        let policy = Policy::parse(&text).unwrap();
        let (granted, usual) = (policy.grant("wg"), Capabilities::usual());
        assert!(granted.has_link("wg0") && !granted.has_link("flannel.1"));
        assert!(granted.has_port(51820) && granted.has_port(4001) && !granted.has_port(8472));
        assert!(granted.sysctls.is_empty());
        assert_eq!((granted.files, granted.link_kinds), (usual.files, usual.link_kinds));
        assert_eq!(policy.grant("vxlan"), Capabilities::usual());
        assert_eq!(policy.digest("wg"), Some("ab".repeat(32).as_str()));
        let (limits, others) = (policy.limits("wg"), policy.limits("vxlan"));
        assert_eq!(
            (limits.memory, limits.call, limits.log_rate),
            (128 << 20, Duration::from_secs(2), 9)
        );
        assert_eq!(
            (others.memory, others.call, others.log_rate),
            (64 << 20, Duration::from_secs(2), 7)
        );
    }

    #[test]
    fn policy_errors_name_the_line() {
        for (text, expected) in [
            (
                "[limits]\nmemory = 1\n",
                "line 2 (`memory = 1`): unknown field `memory`, expected one of `memory-mib`",
            ),
            ("\n[limits]\nmemory-mib = 0\n", "line 3 (`memory-mib = 0`): 0: expected 1 to 4096"),
            ("[limits]\ncall-ms = 60000\n", "60000: expected 20 to 20000"),
            ("[limits]\ncall-ms = '1s'\n", "invalid type: string \"1s\", expected i64"),
            ("[plugins.x]\n", "unknown field `plugins`, expected `limits` or `plugin`"),
            (
                "[plugin.x]\nsha256 = 'abc'\n",
                "expected the SHA-256 of the component, 64 hexadecimal digits",
            ),
            ("[plugin.x]\nlinks = 'wg0'\n", "expected a sequence"),
            ("[plugin.x]\nudp-ports = [0]\n", "`0` are no UDP ports"),
            ("[plugin.x]\nfiles = ['etc/x']\n", "`etc/x` is no pattern of paths"),
            ("[plugin.x\n", "line 1 (`[plugin.x`): "),
        ] {
            let error = error(text);
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with("line "), "{error}");
        }
        assert_eq!(
            error("[plugin.WireGuard]\n"),
            "section `plugin`: `WireGuard` cannot name a plugin: expected 1 to 32 out of a–z, 0–9 and `-`"
        );
    }

    #[test]
    fn only_the_default_policy_file_may_be_missing() {
        let error = Policy::read(Path::new("/no/such/plugins.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/plugins.toml: cannot be read: "), "{error}");
        if !Path::new(Policy::DEFAULT_FILE).exists() {
            assert_eq!(Policy::read(Path::new(Policy::DEFAULT_FILE)).unwrap(), Policy::default());
        }
    }
}
