//! Checks the rules and repairs them.

use std::collections::{BTreeMap, BTreeSet};

use heddle_core::address::Family;

use crate::iptables::repair::WantedChain;
use crate::iptables::saved::Ruleset;
use crate::iptables::{Flavour, Installed, Place, Tools, legacy_in_use};
use crate::names::Names;
use crate::nft::table::WantedTable;
use crate::repair::repair_place;
use crate::rule::{Purpose, Rule};
use crate::{FirewallError, Mode, Rules, iptables, nft};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Maintains the rules of one network. Its methods block, and act on the calling thread's network
/// namespace.
#[derive(Debug)]
pub struct Firewall {
    rules: Rules,
    names: Names,
    /// The versions of `iptables` and `ip6tables` found at the last check; missing if not
    /// installed.
    installed: BTreeMap<Family, Installed>,
    /// Problems that were already reported.
    reported: BTreeSet<String>,
}

impl Firewall {
    /// Creates a firewall for these rules. [`ensure`](Self::ensure) installs them.
    pub fn new(rules: Rules) -> Self {
        let names = Names::new(&rules.network_name);
        Self { rules, names, installed: BTreeMap::new(), reported: BTreeSet::new() }
    }

    /// Checks the rules and repairs drift: rules missing, changed, out of order or foreign in our
    /// chains; jumps that are missing, too late or duplicated. Removes stale rules of ours, left
    /// behind by an earlier start with other flags. Idempotent.
    ///
    /// Returns one line for each difference that was found and repaired; empty if nothing was
    /// written. A place that may hold stale rules and cannot be read gets a line, once; so does a
    /// missing program that only forwarding would need.
    ///
    /// # Errors
    ///
    /// A missing program that masquerading needs, a program that fails, [`FirewallError::Hidden`],
    /// and [`FirewallError::StillDiffers`]. Repairs before the error stay in effect; first come the
    /// rules of the mode in use, then accept rules in other places that refuse forwarding, then the
    /// removal of stale rules.
    pub fn ensure(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut lines = Vec::new();
        self.ask_installed(&mut lines)?;
        if self.rules.mode == Mode::Nftables {
            let seen = nft::look(&self.wanted_tables());
            if let Some(seen) = self.required_for_masquerade(seen, &mut lines)? {
                self.repair_tables(seen, &mut lines)?;
            }
        }
        let own = self.own_places();
        for &place in &own {
            let tools = self.tools(place);
            let saved = tools.save()?;
            let hidden = self.hidden(place, &saved, true);
            self.repair_chains(&tools, saved, true, &mut lines)?;
            hidden?;
        }
        for place in Place::all().filter(|place| !own.contains(place)) {
            if place.flavour == Flavour::Legacy && !legacy_in_use(place.family) {
                continue;
            }
            let tools = self.tools(place);
            if let Some(saved) = self.ok_or_report(tools.save(), &mut lines) {
                self.ok_or_report(self.hidden(place, &saved, false), &mut lines);
                self.repair_chains(&tools, saved, false, &mut lines)?;
            }
        }
        if self.rules.mode == Mode::Iptables
            && let Some(seen) = self.ok_or_report(nft::look(&self.wanted_tables()), &mut lines)
        {
            self.repair_tables(seen, &mut lines)?;
        }
        Ok(lines)
    }

    /// Asks for the version of iptables, at each check: it may have been installed since, or
    /// switched to the other flavour with `update-alternatives`. After a switch the rules are first
    /// installed in the new flavour, and those in the old one are then stale.
    fn ask_installed(&mut self, lines: &mut Vec<String>) -> Result<(), FirewallError> {
        for family in FAMILIES {
            let asked = Installed::ask(family);
            let concerned =
                self.rules.mode == Mode::Iptables && self.rules.families.get(family).is_some();
            let installed = if concerned {
                self.required_for_masquerade(asked, lines)?
            } else {
                self.ok_or_report(asked, lines)
            };
            match installed {
                Some(installed) => drop(self.installed.insert(family, installed)),
                None => drop(self.installed.remove(&family)),
            }
        }
        Ok(())
    }

    /// Returns `None` if the program is missing and masquerading is off. A missing tool is fatal
    /// only for masquerading: without it nothing can be dropping forwarded packets.
    fn required_for_masquerade<T>(
        &mut self,
        seen: Result<T, FirewallError>,
        lines: &mut Vec<String>,
    ) -> Result<Option<T>, FirewallError> {
        match seen {
            Err(error @ FirewallError::Missing { .. }) if self.rules.masquerade.is_none() => {
                if self.rules.forward {
                    self.report_once(format!("no rules for forwarding: {error}"), lines);
                }
                Ok(None)
            }
            seen => seen.map(Some),
        }
    }

    /// Returns the places in which iptables gets both chains.
    fn own_places(&self) -> Vec<Place> {
        let own = |place: &Place| {
            let installed = self.installed.get(&place.family);
            self.rules.mode == Mode::Iptables
                && self.rules.families.get(place.family).is_some()
                && installed.is_some_and(|installed| installed.flavour == place.flavour)
        };
        Place::all().filter(own).collect()
    }

    /// Checks that the tables which are to be written can be read.
    ///
    /// # Errors
    ///
    /// [`FirewallError::Hidden`], if a table cannot be read, and so cannot be compared with the
    /// wanted rules.
    fn hidden(&self, place: Place, saved: &Ruleset, own: bool) -> Result<(), FirewallError> {
        let needed = |purpose: &Purpose| match purpose {
            Purpose::Masquerade => own && self.rules.masquerade.is_some(),
            Purpose::Forward => {
                self.rules.forward && self.rules.families.get(place.family).is_some()
            }
        };
        let mut tables = Purpose::ALL.into_iter().filter(needed).map(Purpose::table);
        match tables.find(|table| saved.hides(table)) {
            Some(table) => Err(FirewallError::Hidden { place: place.to_string(), table }),
            None => Ok(()),
        }
    }

    fn repair_chains(
        &self,
        tools: &Tools,
        saved: Ruleset,
        own: bool,
        lines: &mut Vec<String>,
    ) -> Result<(), FirewallError> {
        repair_place(
            &tools.place,
            saved,
            || tools.save(),
            |saved| iptables::repair::plan(saved, &self.wanted_chains(tools.place, saved, own)),
            |input| tools.restore(input),
            lines,
        )
    }

    fn repair_tables(&self, seen: nft::Seen, lines: &mut Vec<String>) -> Result<(), FirewallError> {
        let wanted = self.wanted_tables();
        repair_place(
            &"nftables",
            seen,
            || nft::look(&wanted),
            |seen| nft::table::plan(seen, &wanted),
            nft::write,
            lines,
        )
    }

    /// Returns the chains wanted in a place: both in a place of the mode in use; in any other only
    /// forwarding, if it is refused there.
    fn wanted_chains(&self, place: Place, saved: &Ruleset, own: bool) -> Vec<WantedChain> {
        let forward = saved.chain("filter", "FORWARD");
        let refused = forward.is_some_and(iptables::saved::Chain::refuses_by_default);
        let installed = self.installed.get(&place.family);
        let random_fully = installed.is_some_and(|installed| installed.random_fully);
        let wanted = |purpose| WantedChain {
            purpose,
            name: self.names.chain(purpose),
            rules: (own || purpose == Purpose::Forward && refused)
                .then(|| self.wanted_rules(purpose, place.family, random_fully))
                .flatten(),
        };
        Purpose::ALL.map(wanted).to_vec()
    }

    /// Returns the wanted state of our nftables tables.
    fn wanted_tables(&self) -> Vec<WantedTable> {
        let chain = |purpose, family| Some((purpose, self.wanted_rules(purpose, family, true)?));
        let wanted = |family| WantedTable {
            family,
            name: self.names.table(family),
            chains: match self.rules.mode {
                Mode::Iptables => Vec::new(),
                Mode::Nftables => {
                    Purpose::ALL.into_iter().filter_map(|purpose| chain(purpose, family)).collect()
                }
            },
        };
        FAMILIES.map(wanted).to_vec()
    }

    /// Returns the rules for a purpose, or `None` if it is disabled or the network lacks the
    /// family.
    fn wanted_rules(
        &self,
        purpose: Purpose,
        family: Family,
        random_fully_supported: bool,
    ) -> Option<Vec<Rule>> {
        let random_fully = match purpose {
            Purpose::Masquerade => self.rules.masquerade?.random_fully,
            Purpose::Forward => self.rules.forward.then_some(false)?,
        };
        Some(
            purpose.rules(self.rules.families.get(family)?, random_fully && random_fully_supported),
        )
    }

    fn tools(&self, place: Place) -> Tools {
        Tools::new(place, self.installed.get(&place.family))
    }

    /// Returns what was read from a place where possibly nothing is needed. A failure is reported
    /// once. A missing program is not reported: without it nobody has rules there.
    fn ok_or_report<T>(
        &mut self,
        seen: Result<T, FirewallError>,
        lines: &mut Vec<String>,
    ) -> Option<T> {
        let error = match seen {
            Ok(seen) => return Some(seen),
            Err(FirewallError::Missing { .. }) => return None,
            Err(error) => error,
        };
        let line =
            format!("cannot check for leftover rules and chains that refuse forwarding: {error}");
        self.report_once(line, lines);
        None
    }

    fn report_once(&mut self, line: String, lines: &mut Vec<String>) {
        if self.reported.insert(line.clone()) {
            lines.push(line);
        }
    }
}
