//! Looking, and putting right.

use std::collections::{BTreeMap, BTreeSet};

use heddle_core::address::Family;

use crate::iptables::repair::WantedChain;
use crate::iptables::saved::Ruleset;
use crate::iptables::{Flavour, Installed, Place, Tools, legacy_in_use};
use crate::names::Names;
use crate::nft::table::WantedTable;
use crate::repair::settle;
use crate::rule::{Purpose, Rule};
use crate::{FamilyRules, FirewallError, Mode, Rules, iptables, nft};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Keeps the rules of one network. Its methods block, and concern the network namespace of the calling thread.
#[derive(Debug)]
pub struct Firewall {
    rules: Rules,
    names: Names,
    /// What `iptables` and `ip6tables` are, as far as they are there, as of the last look.
    installed: BTreeMap<Family, Installed>,
    /// Troubles that were told already.
    told: BTreeSet<String>,
}

impl Firewall {
    /// Keeps these rules, from the first [`ensure`](Self::ensure) on.
    pub fn new(rules: Rules) -> Self {
        let names = Names::new(&rules.network_name);
        Self { rules, names, installed: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Looks, and puts right what is not: rules missing, changed, out of order or not ours in our chains; jumps missing,
    /// too late or there twice. Removes what is ours and not wanted, left behind by an earlier start with other flags.
    ///
    /// Returns what it found and put right, one line each; empty: all was right, and nothing was written. A place where
    /// rules may be left over and that cannot be looked at gets a line, once; so does a program that is not installed, where
    /// only forwarding would need it.
    ///
    /// # Errors
    ///
    /// A program that is needed for masquerading and not installed, one that fails, [`FirewallError::Hidden`], and
    /// [`FirewallError::Unsettled`]. What comes before it is put right: first the rules of the mode in use, then the
    /// answers to refusals elsewhere and what is left over.
    pub fn ensure(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut lines = Vec::new();
        self.ask_installed(&mut lines)?;
        if self.rules.mode == Mode::Nftables {
            let seen = nft::look(&self.wanted_tables());
            if let Some(seen) = self.unless_dispensable(seen, &mut lines)? {
                self.settle_tables(seen, &mut lines)?;
            }
        }
        let own = self.own_places();
        for &place in &own {
            let tools = self.tools(place);
            let saved = tools.save()?;
            let hidden = self.hidden(place, &saved, true);
            self.settle_chains(&tools, saved, true, &mut lines)?;
            hidden?;
        }
        for place in Place::all().filter(|place| !own.contains(place)) {
            if place.flavour == Flavour::Legacy && !legacy_in_use(place.family) {
                continue;
            }
            let tools = self.tools(place);
            if let Some(saved) = self.unless_trouble(tools.save(), &mut lines) {
                self.unless_trouble(self.hidden(place, &saved, false), &mut lines);
                self.settle_chains(&tools, saved, false, &mut lines)?;
            }
        }
        if self.rules.mode == Mode::Iptables
            && let Some(seen) = self.unless_trouble(nft::look(&self.wanted_tables()), &mut lines)
        {
            self.settle_tables(seen, &mut lines)?;
        }
        Ok(lines)
    }

    /// At each look: what is not installed may be later, and what is may be another flavour, as after
    /// `update-alternatives`. Then rules move: there first, and what was where they were is left over.
    fn ask_installed(&mut self, lines: &mut Vec<String>) -> Result<(), FirewallError> {
        for family in FAMILIES {
            let asked = Installed::ask(family);
            let concerned = self.rules.mode == Mode::Iptables && self.family(family).is_some();
            let installed = if concerned {
                self.unless_dispensable(asked, lines)?
            } else {
                self.unless_trouble(asked, lines)
            };
            match installed {
                Some(installed) => drop(self.installed.insert(family, installed)),
                None => drop(self.installed.remove(&family)),
            }
        }
        Ok(())
    }

    /// What is not installed is needed for masquerading alone: it refuses nothing that would have to be accepted.
    fn unless_dispensable<T>(
        &mut self,
        seen: Result<T, FirewallError>,
        lines: &mut Vec<String>,
    ) -> Result<Option<T>, FirewallError> {
        match seen {
            Err(error @ FirewallError::Missing { .. }) if self.rules.masquerade.is_none() => {
                if self.rules.forward {
                    self.tell_once(format!("no rules for forwarding: {error}"), lines);
                }
                Ok(None)
            }
            seen => seen.map(Some),
        }
    }

    /// Where iptables has both chains.
    fn own_places(&self) -> Vec<Place> {
        let own = |place: &Place| {
            let installed = self.installed.get(&place.family);
            self.rules.mode == Mode::Iptables
                && self.family(place.family).is_some()
                && installed.is_some_and(|installed| installed.flavour == place.flavour)
        };
        Place::all().filter(own).collect()
    }

    /// # Errors
    ///
    /// [`FirewallError::Hidden`], if what is to be in a place cannot be compared with what is.
    fn hidden(&self, place: Place, saved: &Ruleset, own: bool) -> Result<(), FirewallError> {
        let needed = |purpose: &Purpose| match purpose {
            Purpose::Masquerade => own && self.rules.masquerade.is_some(),
            Purpose::Forward => self.rules.forward && self.family(place.family).is_some(),
        };
        let mut tables = Purpose::ALL.into_iter().filter(needed).map(Purpose::table);
        match tables.find(|table| saved.hides(table)) {
            Some(table) => Err(FirewallError::Hidden { place: place.to_string(), table }),
            None => Ok(()),
        }
    }

    fn settle_chains(
        &self,
        tools: &Tools,
        saved: Ruleset,
        own: bool,
        lines: &mut Vec<String>,
    ) -> Result<(), FirewallError> {
        settle(
            &tools.place,
            saved,
            || tools.save(),
            |saved| iptables::repair::plan(saved, &self.wanted_chains(tools.place, saved, own)),
            |input| tools.restore(input),
            lines,
        )
    }

    fn settle_tables(&self, seen: nft::Seen, lines: &mut Vec<String>) -> Result<(), FirewallError> {
        let wanted = self.wanted_tables();
        settle(
            &"nftables",
            seen,
            || nft::look(&wanted),
            |seen| nft::table::plan(seen, &wanted),
            nft::write,
            lines,
        )
    }

    /// The chains that should be in a place: both in the mode's own, and in any other forwarding alone, if it is refused
    /// there.
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

    /// Our tables in nftables as they should be.
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

    /// The rules for a purpose, unless a flag or the config says that there are none.
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
        Some(purpose.rules(self.family(family)?, random_fully && random_fully_supported))
    }

    fn family(&self, family: Family) -> Option<&FamilyRules> {
        self.rules.families.iter().find(|rules| Family::of_network(rules.network) == family)
    }

    fn tools(&self, place: Place) -> Tools {
        Tools::new(place, self.installed.get(&place.family))
    }

    /// What was seen where nothing may be needed. That it cannot be looked at is told once, and not at all if it is for
    /// a program that is not installed: then nobody has rules there.
    fn unless_trouble<T>(
        &mut self,
        seen: Result<T, FirewallError>,
        lines: &mut Vec<String>,
    ) -> Option<T> {
        let error = match seen {
            Ok(seen) => return Some(seen),
            Err(FirewallError::Missing { .. }) => return None,
            Err(error) => error,
        };
        let line = format!("cannot look for rules left over, or that refuse forwarding: {error}");
        self.tell_once(line, lines);
        None
    }

    fn tell_once(&mut self, line: String, lines: &mut Vec<String>) {
        if self.told.insert(line.clone()) {
            lines.push(line);
        }
    }
}
