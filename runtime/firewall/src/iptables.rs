//! iptables, in both of its flavours.

pub(crate) mod repair;
pub(crate) mod saved;

use std::fmt;
use std::path::Path;

use heddle_core::address::Family;
use semver::Version;

use crate::FirewallError;
use crate::program::{command_line, run};
use saved::Ruleset;

/// Time limit for the lock that the programs of the legacy flavour share, in seconds.
pub(crate) const LOCK_SECONDS: u64 = 5;

/// The packet filter of the kernel that holds the rules. Both filters apply to every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// nf_tables, in tables that only iptables writes.
    Nft,
    /// x_tables.
    Legacy,
}

impl Flavour {
    pub(crate) const ALL: [Self; 2] = [Self::Nft, Self::Legacy];
}

/// One of the four places where iptables keeps rules: a family and a flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) family: Family,
    pub(crate) flavour: Flavour,
}

impl Place {
    /// Iterates over all four places.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Family::V4, Family::V6]
            .into_iter()
            .flat_map(|family| Flavour::ALL.map(|flavour| Self { family, flavour }))
    }
}

impl fmt::Display for Place {
    /// Writes the name of its command: `ip6tables-legacy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flavour = match self.flavour {
            Flavour::Nft => "nft",
            Flavour::Legacy => "legacy",
        };
        write!(f, "{}-{flavour}", command(self.family))
    }
}

/// Returns the command of a family.
pub(crate) const fn command(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// The `iptables` or `ip6tables` that is installed on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) flavour: Flavour,
    /// True if MASQUERADE supports `--random-fully`: from version 1.6.2 on.
    pub(crate) random_fully: bool,
}

impl Installed {
    /// Asks the command of a family for its version.
    ///
    /// # Errors
    ///
    /// Those of running it, and output without a version.
    pub(crate) fn ask(family: Family) -> Result<Self, FirewallError> {
        let printed = run(command(family), &["--version"], "")?;
        Self::parse(&printed).ok_or_else(|| FirewallError::Output {
            command: command_line(command(family), &["--version"]),
            problem: format!("`{}` contains no version such as v1.8.9", printed.trim()),
        })
    }

    /// Parses `iptables v1.8.9 (nf_tables)`. Before 1.8 there was one flavour, and nothing in
    /// parentheses.
    fn parse(printed: &str) -> Option<Self> {
        let mut words = printed.split_whitespace();
        let version = words.find_map(|word| Version::parse(word.strip_prefix('v')?).ok())?;
        Some(Self {
            flavour: match words.next() {
                Some("(nf_tables)") => Flavour::Nft,
                _ => Flavour::Legacy,
            },
            random_fully: version >= Version::new(1, 6, 2),
        })
    }
}

/// The save and restore programs for one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) place: Place,
    save: String,
    restore: String,
}

impl Tools {
    /// Chooses the plain names if they are of this flavour, otherwise the names with the flavour.
    pub(crate) fn new(place: Place, installed: Option<&Installed>) -> Self {
        let prefix = match installed {
            Some(installed) if installed.flavour == place.flavour => {
                command(place.family).to_owned()
            }
            _ => place.to_string(),
        };
        Self { place, save: format!("{prefix}-save"), restore: format!("{prefix}-restore") }
    }

    /// Reads all tables.
    ///
    /// # Errors
    ///
    /// Those of running the program, and output that cannot be parsed.
    pub(crate) fn save(&self) -> Result<Ruleset, FirewallError> {
        // Without `-t`, only tables in use are read. With it, the legacy flavour loads a kernel
        // module for the table.
        let printed = run(&self.save, &[], "")?;
        Ruleset::parse(&printed)
            .map_err(|problem| FirewallError::Output { command: self.save.clone(), problem })
    }

    /// Applies changes to tables, atomically for each table.
    ///
    /// # Errors
    ///
    /// Those of running the program.
    pub(crate) fn restore(&self, input: &str) -> Result<(), FirewallError> {
        let wait = format!("--wait={LOCK_SECONDS}");
        run(&self.restore, &["--noflush", &wait], input).map(drop)
    }
}

/// Returns true if the legacy flavour has tables of a family in the calling thread's network
/// namespace. Check this first: running its programs without need would load kernel modules,
/// through which every packet then has to pass.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
pub(crate) fn legacy_in_use(family: Family) -> bool {
    let file = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    // `/proc/net` would show the namespace of the process's main thread.
    let names = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(file));
    // Without the modules the file does not exist.
    names.is_ok_and(|names| !names.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavour_is_parsed_from_version() {
        for (printed, flavour, random_fully) in [
            ("iptables v1.8.9 (nf_tables)\n", Flavour::Nft, true),
            ("ip6tables v1.8.9 (legacy)\n", Flavour::Legacy, true),
            ("iptables v1.6.1\n", Flavour::Legacy, false),
        ] {
            assert_eq!(Installed::parse(printed), Some(Installed { flavour, random_fully }));
        }
        assert_eq!(Installed::parse("BusyBox\n"), None);
    }

    #[test]
    fn programs_of_other_flavour_have_suffixed_names() {
        let installed = Installed { flavour: Flavour::Nft, random_fully: true };
        let tools = |family, flavour| Tools::new(Place { family, flavour }, Some(&installed));
        assert_eq!(tools(Family::V4, Flavour::Nft).restore, "iptables-restore");
        assert_eq!(tools(Family::V6, Flavour::Legacy).save, "ip6tables-legacy-save");
        let place = Place { family: Family::V4, flavour: Flavour::Nft };
        assert_eq!(Tools::new(place, None).save, "iptables-nft-save");
    }
}
