//! Computes the input of `iptables-restore` that repairs our chains; none if they are correct.

use std::fmt::Write as _;

use crate::iptables::saved::{Ruleset, SavedRule};
use crate::repair::{Difference, Repair};
use crate::rule::{Action, Purpose, Rule, Side};

/// A chain of ours in its wanted state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedChain {
    pub(crate) purpose: Purpose,
    pub(crate) name: String,
    /// `None` if the chain should not exist.
    pub(crate) rules: Option<Vec<Rule>>,
}

impl Purpose {
    /// Returns the iptables table of its chain.
    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Masquerade => "nat",
            Self::Forward => "filter",
        }
    }

    /// Returns the kernel's base chain that jumps to its chain.
    pub(crate) const fn base_chain(self) -> &'static str {
        match self {
            Self::Masquerade => "POSTROUTING",
            Self::Forward => "FORWARD",
        }
    }
}

/// Compares the saved state with the wanted state. The repair is input for `iptables-restore
/// --noflush`, which changes each table atomically, at its `COMMIT`. Skips tables that cannot be
/// read: the repair would duplicate the rules that are already there.
pub(crate) fn plan(saved: &Ruleset, wanted: &[WantedChain]) -> Option<Repair> {
    let mut input = String::new();
    let mut differences = Vec::new();
    for wanted in wanted.iter().filter(|wanted| !saved.hides(wanted.purpose.table())) {
        let lines = match &wanted.rules {
            Some(rules) => put(saved, wanted, rules, &mut differences),
            None => remove(saved, wanted, &mut differences),
        };
        if !lines.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(input, "*{}\n{}\nCOMMIT", wanted.purpose.table(), lines.join("\n"));
        }
    }
    (!differences.is_empty()).then_some(Repair { input, differences })
}

/// Returns the lines that repair a chain and the jump to it.
fn put(
    saved: &Ruleset,
    wanted: &WantedChain,
    rules: &[Rule],
    differences: &mut Vec<Difference>,
) -> Vec<String> {
    let WantedChain { purpose, name, .. } = wanted;
    let (table, base) = (purpose.table(), purpose.base_chain());
    let comment = purpose.comment();
    let mut lines = Vec::new();

    let content: Vec<Vec<String>> = rules.iter().map(|rule| arguments(rule, comment)).collect();
    let found = saved.chain(table, name);
    let same = |found: &[SavedRule]| found.iter().map(|rule| &rule.arguments).eq(&content);
    match found {
        Some(chain) if same(&chain.rules) => {}
        _ => {
            // Declaring the chain also flushes it, atomically with the new rules.
            lines.push(format!(":{name} - [0:0]"));
            lines.extend(content.iter().map(|rule| format!("-A {name} {}", quoted(rule))));
            differences.push(match found {
                None => Difference::new(format!("{table} {name} was missing"), "repaired"),
                Some(_) => Difference::new(format!("{table} {name} had other rules"), "repaired"),
            });
        }
    }

    let jump = jump(name, comment);
    let others: Vec<&SavedRule> = base_rules(saved, *purpose).collect();
    let jumps: Vec<&SavedRule> =
        others.iter().copied().filter(|rule| rule.target() == Some(name)).collect();
    // A jump after a rule that refuses everything is never reached.
    let too_late = || {
        let own = others.iter().position(|rule| rule.target() == Some(name));
        let refused = others.iter().position(|rule| rule.step().refuses_everything());
        matches!((own, refused), (Some(own), Some(refused)) if refused < own)
    };
    let difference = match jumps.as_slice() {
        [] if found.is_none() => Some(None),
        [] => Some(Some(format!("{table} {base} did not jump to {name}"))),
        [only] if only.arguments != jump => {
            Some(Some(format!("{table} {base} had a wrong jump to {name}")))
        }
        [_] if too_late() => {
            Some(Some(format!("{table} {base} refused everything before its jump to {name}")))
        }
        [_] => None,
        more => Some(Some(format!("{table} {base} jumped to {name} {} times", more.len()))),
    };
    if let Some(difference) = difference {
        differences.extend(difference.map(|found| Difference::new(found, "repaired")));
        lines.extend(jumps.iter().map(|rule| format!("-D {base} {}", rule.text)));
        let position = others
            .iter()
            .filter(|rule| rule.target() != Some(name))
            .position(|rule| rule.step().refuses_everything());
        lines.push(match position {
            Some(position) => format!("-I {base} {} {}", position + 1, quoted(&jump)),
            None => format!("-A {base} {}", quoted(&jump)),
        });
    }
    lines
}

/// Returns the lines that remove a chain and all jumps to it.
fn remove(saved: &Ruleset, wanted: &WantedChain, differences: &mut Vec<Difference>) -> Vec<String> {
    let WantedChain { purpose, name, .. } = wanted;
    let Some(table) = saved.table(purpose.table()) else { return Vec::new() };
    if !table.chains.contains_key(name) {
        return Vec::new();
    }
    let found = format!("{} {name} was left over", purpose.table());
    differences.push(Difference::new(found, "removed"));
    let mut lines = vec![format!(":{name} - [0:0]")];
    for (chain, content) in table.chains.iter().filter(|(chain, _)| *chain != name) {
        let jumps = content.rules.iter().filter(|rule| rule.target() == Some(name));
        lines.extend(jumps.map(|rule| format!("-D {chain} {}", rule.text)));
    }
    lines.push(format!("-X {name}"));
    lines
}

fn base_rules(saved: &Ruleset, purpose: Purpose) -> impl Iterator<Item = &SavedRule> {
    saved.chain(purpose.table(), purpose.base_chain()).into_iter().flat_map(|chain| &chain.rules)
}

fn jump(name: &str, comment: &str) -> Vec<String> {
    ["-m", "comment", "--comment", comment, "-j", name].map(str::to_owned).to_vec()
}

/// Formats a rule as `iptables-save` prints it, so that the two can be compared.
fn arguments(rule: &Rule, comment: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (option, side) in [("-s", rule.source), ("-d", rule.destination)] {
        if let Some(Side { network, negated }) = side {
            if negated {
                words.push("!".into());
            }
            words.extend([option.into(), network.to_string()]);
        }
    }
    if let Some(mark) = rule.mark {
        words.extend(["-m", "mark", "--mark"].map(str::to_owned));
        words.push(format!("{mark:#x}/{mark:#x}"));
    }
    words.extend(["-m", "comment", "--comment", comment].map(str::to_owned));
    let action: &[&str] = match rule.action {
        Action::Accept => &["-j", "ACCEPT"],
        Action::Return => &["-j", "RETURN"],
        Action::Masquerade { random_fully: false } => &["-j", "MASQUERADE"],
        Action::Masquerade { random_fully: true } => &["-j", "MASQUERADE", "--random-fully"],
    };
    words.extend(action.iter().map(|&word| word.to_owned()));
    words
}

/// Quotes words for `iptables-restore`. Of the characters that need quotes, ours contain only
/// spaces.
fn quoted(words: &[String]) -> String {
    words
        .iter()
        .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word.clone() })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests;
