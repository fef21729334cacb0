//! Parses the output of `iptables-save`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::rule::{Chains, Side, Step, Verdict};

/// The tables of one family in one flavour of iptables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    tables: BTreeMap<String, Table>,
    /// Tables that exist but are not printed, because somebody wrote rules into them that iptables
    /// cannot express.
    hidden: BTreeSet<String>,
}

/// A table: its chains by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) chains: BTreeMap<String, Chain>,
}

/// A chain: its rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The verdict at the end of the chain: `ACCEPT` or `DROP`; `-` for a chain without a hook.
    pub(crate) policy: String,
    pub(crate) rules: Vec<SavedRule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedRule {
    /// The rule as printed, without `-A` and the chain: valid input for `iptables-restore`.
    pub(crate) text: String,
    /// `text`, split into words.
    pub(crate) arguments: Vec<String>,
}

impl Ruleset {
    /// Parses the output.
    ///
    /// # Errors
    ///
    /// The first line that is not a table, a chain, a rule, `COMMIT` or a comment.
    pub(crate) fn parse(printed: &str) -> Result<Self, String> {
        let mut ruleset = Self::default();
        let mut table = None;
        let mut lines = printed.lines().filter(|line| !line.is_empty());
        while let Some(line) = lines.next() {
            let unknown = || format!("`{line}`");
            if line.starts_with('#') {
                ruleset.hidden.extend(hidden(line).map(str::to_owned));
                continue;
            }
            if let Some(name) = line.strip_prefix('*') {
                table = Some(ruleset.tables.entry(name.to_owned()).or_default());
                continue;
            }
            if line == "COMMIT" {
                table = None;
                continue;
            }
            let table = table.as_mut().ok_or_else(unknown)?;
            if let Some(declaration) = line.strip_prefix(':') {
                let (name, rest) = declaration.split_once(' ').ok_or_else(unknown)?;
                let policy = rest.split(' ').next().unwrap_or_default().to_owned();
                table.chains.entry(name.to_owned()).or_default().policy = policy;
            } else {
                let rule = line.strip_prefix("-A ").ok_or_else(unknown)?;
                // A rule without matches and target consists of its chain only.
                let (chain, text) = rule.split_once(' ').unwrap_or((rule, ""));
                let mut text = text.to_owned();
                let arguments = loop {
                    if let Some(arguments) = arguments(&text) {
                        break arguments;
                    }
                    // A comment may contain line breaks, which are printed unescaped.
                    text = [&text, lines.next().ok_or_else(unknown)?].join("\n");
                };
                let chain = table.chains.entry(chain.to_owned()).or_default();
                chain.rules.push(SavedRule { text, arguments });
            }
        }
        Ok(ruleset)
    }

    /// Returns a table, if it is in use.
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// Returns true if a table exists but cannot be read, so that its contents are unknown.
    pub(crate) fn hides(&self, table: &str) -> bool {
        self.hidden.contains(table)
    }

    /// Returns a chain, if it exists.
    pub(crate) fn chain(&self, table: &str, chain: &str) -> Option<&Chain> {
        self.table(table)?.chains.get(chain)
    }
}

/// Extracts the name of an unprinted table from a comment (`xtables-save.c` of iptables).
fn hidden(comment: &str) -> Option<&str> {
    let (table, rest) = comment.strip_prefix("# Table `")?.split_once('\'')?;
    // Not `contains incompatible base-chains`: in that case the rest of the table is printed.
    rest.starts_with(" is incompatible").then_some(table)
}

/// Splits a rule into words, some in double quotes with `"`, `\` and `'` escaped
/// (`xtables_save_string` of iptables).
fn arguments(text: &str) -> Option<Vec<String>> {
    // These are the shell's rules, except for `\'` in double quotes, where a shell keeps the
    // backslash. That only occurs in strings of foreign rules, which are not compared with
    // anything.
    shlex::split(text)
}

impl Table {
    /// Returns the effect of its rules on packets, for every chain.
    pub(crate) fn steps(&self) -> Chains {
        let steps = |chain: &Chain| chain.rules.iter().map(SavedRule::step).collect();
        self.chains.iter().map(|(name, chain)| (name.clone(), steps(chain))).collect()
    }
}

impl Chain {
    /// Returns the position, from 0, of the first rule that refuses every packet.
    pub(crate) fn catch_all(&self) -> Option<usize> {
        self.rules.iter().position(|rule| rule.step().refuses_everything())
    }

    /// Returns true if packets that match no other rule are refused.
    pub(crate) fn refuses_by_default(&self) -> bool {
        self.policy == "DROP" || self.catch_all().is_some()
    }
}

impl SavedRule {
    /// Returns the chain to which it jumps or goes, or the target that gives the verdict.
    pub(crate) fn target(&self) -> Option<&str> {
        let at = self.arguments.iter().position(|word| word == "-j" || word == "-g")?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    /// Returns its effect on packets.
    pub(crate) fn step(&self) -> Step {
        let mut step = Step::default();
        let mut words = self.arguments.iter().map(String::as_str).peekable();
        let mut negated = false;
        while let Some(word) = words.next() {
            match (word, words.peek()) {
                ("!", _) => {
                    negated = true;
                    continue;
                }
                ("-s" | "-d", Some(network)) => {
                    let side = network.parse::<IpNet>().map(|network| Side { network, negated });
                    words.next();
                    match side {
                        Ok(side) if word == "-s" => step.source = Some(side),
                        Ok(side) => step.destination = Some(side),
                        // A non-contiguous mask.
                        Err(_) => step.narrower = true,
                    }
                }
                ("-m", Some(&"comment")) => {
                    words.next();
                }
                ("--comment", Some(_)) => {
                    words.next();
                }
                ("-j" | "-g", Some(&target)) => {
                    step.verdict = verdict(word, target);
                    // The remaining words are the target's own options.
                    break;
                }
                _ => step.narrower = true,
            }
            negated = false;
        }
        step
    }
}

fn verdict(option: &str, target: &str) -> Verdict {
    match target {
        _ if option == "-g" => Verdict::Goto(target.to_owned()),
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Refuse,
        "RETURN" => Verdict::Return,
        // A target such as LOG is treated as a chain that does not exist, and so as one without
        // rules.
        _ => Verdict::Jump(target.to_owned()),
    }
}

#[cfg(test)]
mod tests;
