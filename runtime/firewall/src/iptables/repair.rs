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
mod tests {
    use super::*;
    use crate::FamilyRules;

    fn family(network: &str, subnet: &str) -> FamilyRules {
        FamilyRules { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }
    }

    fn wanted(purpose: Purpose) -> WantedChain {
        let v4 = family("10.244.0.0/16", "10.244.8.0/24");
        let name = match purpose {
            Purpose::Masquerade => "FLANNEL-POSTRTG",
            Purpose::Forward => "FLANNEL-FWD",
        };
        WantedChain { purpose, name: name.into(), rules: Some(purpose.rules(&v4, true)) }
    }

    fn unwanted(purpose: Purpose) -> WantedChain {
        WantedChain { rules: None, ..wanted(purpose) }
    }

    /// Returns a filter table with these rules in its FORWARD chain, and our chain in its wanted
    /// state.
    fn filter(forward: &[&str]) -> Ruleset {
        let forward: String = forward.iter().map(|rule| format!("-A FORWARD {rule}\n")).collect();
        Ruleset::parse(&format!(
            "*filter\n:FORWARD ACCEPT [0:0]\n:FLANNEL-FWD - [0:0]\n{forward}{CHAIN}COMMIT\n"
        ))
        .unwrap()
    }

    const CHAIN: &str = "\
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
";
    const JUMP: &str = "-m comment --comment \"flanneld forward\" -j FLANNEL-FWD";
    const OTHER: &str = "-i eth0 -j ACCEPT";
    const REFUSE: &str = "-j REJECT --reject-with icmp-host-prohibited";

    /// Returns the input for restore, without the `*table` and `COMMIT` lines.
    fn lines(saved: &Ruleset, wanted: &[WantedChain]) -> Vec<String> {
        let input = plan(saved, wanted).map(|repair| repair.input).unwrap_or_default();
        input
            .lines()
            .filter(|line| !line.starts_with('*') && *line != "COMMIT")
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn masquerade_rules_match_flannels_in_order() {
        let repair = plan(&Ruleset::default(), &[wanted(Purpose::Masquerade)]).unwrap();
        assert_eq!(
            repair.input,
            "\
*nat
:FLANNEL-POSTRTG - [0:0]
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.8.0/24 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.8.0/24 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.8.0/24 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
COMMIT
"
        );
        assert_eq!(repair.differences[0].found, "nat FLANNEL-POSTRTG was missing");
    }

    #[test]
    fn ipv6_masquerade_excludes_ipv6_multicast() {
        let v6 = family("2001:cafe:42::/56", "2001:cafe:42:8::/64");
        let rules = Purpose::Masquerade.rules(&v6, false);
        assert_eq!(
            quoted(&arguments(&rules[4], "x")),
            "-s 2001:cafe:42::/56 ! -d ff00::/8 -m comment --comment x -j MASQUERADE"
        );
    }

    #[test]
    fn correct_chains_need_no_repair() {
        for forward in [&[JUMP][..], &[OTHER, JUMP], &[JUMP, OTHER], &[JUMP, REFUSE]] {
            assert_eq!(plan(&filter(forward), &[wanted(Purpose::Forward)]), None, "{forward:?}");
        }
    }

    #[test]
    fn bad_jump_is_replaced_before_any_refusal() {
        let add = format!("-A FORWARD {JUMP}");
        let delete = format!("-D FORWARD {JUMP}");
        let insert = |position| format!("-I FORWARD {position} {JUMP}");
        let narrow = "-i eth0 -j FLANNEL-FWD";
        for (forward, expected) in [
            (vec![OTHER], vec![add.clone()]),
            (vec![OTHER, REFUSE], vec![insert(2)]),
            (vec![JUMP, OTHER, JUMP], vec![delete.clone(), delete.clone(), add.clone()]),
            (vec![OTHER, REFUSE, JUMP], vec![delete.clone(), insert(2)]),
            (vec![JUMP, REFUSE, JUMP], vec![delete.clone(), delete.clone(), insert(1)]),
            (vec![narrow], vec![format!("-D FORWARD {narrow}"), add.clone()]),
        ] {
            assert_eq!(
                lines(&filter(&forward), &[wanted(Purpose::Forward)]),
                expected,
                "{forward:?}"
            );
        }
    }

    #[test]
    fn wrong_rules_are_rewritten_and_good_jump_kept() {
        let good: Vec<&str> = CHAIN.lines().collect();
        let foreign = "-A FLANNEL-FWD -j DROP";
        for found in
            [vec![good[0]], vec![good[1], good[0]], vec![good[0], good[1], foreign], vec![]]
        {
            let saved = Ruleset::parse(&format!(
                "*filter\n:FORWARD DROP [0:0]\n:FLANNEL-FWD - [0:0]\n-A FORWARD {JUMP}\n{}\nCOMMIT\n",
                found.join("\n")
            ))
            .unwrap();
            let repair = plan(&saved, &[wanted(Purpose::Forward)]).unwrap();
            assert_eq!(repair.input, format!("*filter\n:FLANNEL-FWD - [0:0]\n{CHAIN}COMMIT\n"));
            assert_eq!(repair.differences.len(), 1, "{found:?}");
            assert_eq!(repair.differences[0].found, "filter FLANNEL-FWD had other rules");
        }
    }

    #[test]
    fn unwanted_chain_is_removed_with_jumps_to_it() {
        let saved = filter(&[OTHER, JUMP, JUMP]);
        assert_eq!(
            lines(&saved, &[unwanted(Purpose::Forward)]),
            [
                ":FLANNEL-FWD - [0:0]".to_owned(),
                format!("-D FORWARD {JUMP}"),
                format!("-D FORWARD {JUMP}"),
                "-X FLANNEL-FWD".to_owned()
            ]
        );
        assert_eq!(plan(&Ruleset::default(), &[unwanted(Purpose::Forward)]), None);
        assert_eq!(plan(&saved, &[unwanted(Purpose::Masquerade)]), None);
    }

    #[test]
    fn chain_of_other_instance_is_left_alone() {
        let saved = filter(&[JUMP]);
        let other =
            WantedChain { name: "FLANNEL-FWD-5ac5f721".into(), ..unwanted(Purpose::Forward) };
        assert_eq!(plan(&saved, &[other]), None);
    }
}
