//! iptables, in either of its flavours.

pub(crate) mod repair;
pub(crate) mod saved;

use std::fmt;
use std::path::Path;

use heddle_core::address::Family;
use semver::Version;

use crate::FirewallError;
use crate::program::{command_line, run};
use saved::Ruleset;

/// How long a program may wait for the lock that those of the legacy flavour share.
pub(crate) const LOCK_SECONDS: u64 = 5;

/// Which of the kernel's two packet filters the rules are in. Both apply to every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// nf_tables, in tables that are written by iptables alone.
    Nft,
    /// x_tables.
    Legacy,
}

impl Flavour {
    pub(crate) const ALL: [Self; 2] = [Self::Nft, Self::Legacy];
}

/// One of the four places where iptables keeps rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) family: Family,
    pub(crate) flavour: Flavour,
}

impl Place {
    /// All four.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Family::V4, Family::V6]
            .into_iter()
            .flat_map(|family| Flavour::ALL.map(|flavour| Self { family, flavour }))
    }
}

impl fmt::Display for Place {
    /// The name of its command: `ip6tables-legacy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flavour = match self.flavour {
            Flavour::Nft => "nft",
            Flavour::Legacy => "legacy",
        };
        write!(f, "{}-{flavour}", command(self.family))
    }
}

/// A family's command.
pub(crate) const fn command(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// What `iptables` is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) flavour: Flavour,
    /// Whether MASQUERADE takes `--random-fully`: from version 1.6.2 on.
    pub(crate) random_fully: bool,
}

impl Installed {
    /// Asks the command of a family.
    ///
    /// # Errors
    ///
    /// As running it; and output without a version.
    pub(crate) fn ask(family: Family) -> Result<Self, FirewallError> {
        let printed = run(command(family), &["--version"], "")?;
        Self::parse(&printed).ok_or_else(|| FirewallError::Output {
            command: command_line(command(family), &["--version"]),
            problem: format!("`{}` contains no version such as v1.8.9", printed.trim()),
        })
    }

    /// Reads `iptables v1.8.9 (nf_tables)`. Before 1.8 there was one flavour, and nothing in brackets.
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

/// The programs for one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) place: Place,
    save: String,
    restore: String,
}

impl Tools {
    /// Those with the plain name if that is this flavour, else those that name the flavour.
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
    /// As running the program; and output that cannot be read.
    pub(crate) fn save(&self) -> Result<Ruleset, FirewallError> {
        // Without `-t`, tables are read that are in use. With it, the legacy flavour loads a module for the table.
        let printed = run(&self.save, &[], "")?;
        Ruleset::parse(&printed)
            .map_err(|problem| FirewallError::Output { command: self.save.clone(), problem })
    }

    /// Changes tables, each in one step.
    ///
    /// # Errors
    ///
    /// As running the program.
    pub(crate) fn restore(&self, input: &str) -> Result<(), FirewallError> {
        let wait = format!("--wait={LOCK_SECONDS}");
        run(&self.restore, &["--noflush", &wait], input).map(drop)
    }
}

/// Whether the legacy flavour has tables of a family in the calling thread's network namespace. Its programs would load
/// modules, from then on every packet's way, if they were asked without need.
pub(crate) fn legacy_in_use(family: Family) -> bool {
    let file = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    // `/proc/net` would be the namespace of the process.
    let names = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(file));
    // Without the modules there is no such file.
    names.is_ok_and(|names| !names.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_the_flavour() {
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
    fn the_other_flavours_programs_carry_its_name() {
        let installed = Installed { flavour: Flavour::Nft, random_fully: true };
        let tools = |family, flavour| Tools::new(Place { family, flavour }, Some(&installed));
        assert_eq!(tools(Family::V4, Flavour::Nft).restore, "iptables-restore");
        assert_eq!(tools(Family::V6, Flavour::Legacy).save, "ip6tables-legacy-save");
        let place = Place { family: Family::V4, flavour: Flavour::Nft };
        assert_eq!(Tools::new(place, None).save, "iptables-nft-save");
    }
}
