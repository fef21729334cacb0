//! A table as rules on datagrams, and the walk through its chains.

use std::collections::BTreeMap;

use crate::datagram::condition::{Condition, Datagrams, Direction, Truth};
use crate::rule::Verdict;
use crate::verdict::Filter;

/// A table: its chains by name, and those of them at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) filter: Filter,
    /// `filter` for iptables; for nftables with its family, `inet firewalld`.
    pub(super) name: String,
    pub(super) chains: BTreeMap<String, Vec<Rule>>,
    pub(super) bases: Vec<Base>,
}

/// A chain at a hook that datagrams pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) direction: Direction,
    pub(super) chain: String,
    /// True if the policy drops.
    pub(super) drops: bool,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
    /// True if it exempts packets from connection tracking.
    pub(super) untracks: bool,
    /// Text or handle by which the operator finds it.
    pub(super) text: String,
    /// Position in its chain, from 1.
    pub(super) number: usize,
}

/// The place where datagrams are dropped: a policy, or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drop<'a> {
    pub(super) base: &'a Base,
    /// Chain of the rule, which may be another one than the chain at the hook.
    pub(super) chain: &'a str,
    /// `None` for the policy.
    pub(super) rule: Option<&'a Rule>,
}

/// The fate of datagrams in a table, or in a chain at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate<'a> {
    Accepted,
    Dropped(Drop<'a>),
    Unknown,
}

/// Depth of calls at which the walk gives up (`NFT_JUMP_STACK_SIZE` in
/// `net/netfilter/nf_tables_core.c`).
const DEEPEST: usize = 16;

/// Possible fates of datagrams in a chain, of which one happens.
#[derive(Clone, Debug, Default)]
struct Outcomes<'a> {
    accepted: bool,
    /// The last of the rules that may drop them, with its chain. If no part but this one is
    /// possible, it is the one that drops whatever the others left.
    dropped: Option<(&'a str, &'a Rule)>,
    /// True if the fate may be decided by something that is not evaluated here.
    unknown: bool,
    /// True if they may reach the end of the chain, or a return.
    ended: bool,
}

impl<'a> Outcomes<'a> {
    /// Adds their possible fates in a called chain. Returns true if they may come back.
    fn add(&mut self, called: &Outcomes<'a>) -> bool {
        self.accepted |= called.accepted;
        self.unknown |= called.unknown;
        self.dropped = called.dropped.or(self.dropped);
        called.ended
    }
}

impl Table {
    /// Returns true if a rule exempts packets from connection tracking.
    pub(super) fn untracks(&self) -> bool {
        self.chains.values().flatten().any(|rule| rule.untracks)
    }

    /// Evaluates the chains at the hooks that the datagrams pass.
    pub(super) fn fates(&self, datagrams: &Datagrams, untracked: bool) -> Vec<Fate<'_>> {
        let mut walk = Walk { table: self, datagrams, untracked, known: BTreeMap::new() };
        let bases = self.bases.iter().filter(|base| base.direction == datagrams.direction);
        bases.map(|base| walk.fate(base)).collect()
    }
}

/// Evaluation of a table for some datagrams.
struct Walk<'a, 'd> {
    table: &'a Table,
    datagrams: &'d Datagrams,
    untracked: bool,
    /// The chains that are evaluated already: several rules may call the same one.
    known: BTreeMap<&'a str, Outcomes<'a>>,
}

impl<'a> Walk<'a, '_> {
    fn fate(&mut self, base: &'a Base) -> Fate<'a> {
        let outcomes = self.chain(&base.chain, DEEPEST);
        let (accepted, refused) = match outcomes.ended {
            true => (outcomes.accepted || !base.drops, base.drops),
            false => (outcomes.accepted, false),
        };
        match outcomes.dropped {
            _ if outcomes.unknown => Fate::Unknown,
            None if accepted && !refused => Fate::Accepted,
            _ if accepted => Fate::Unknown,
            // The policy drops all that the rules leave.
            _ if refused => Fate::Dropped(Drop { base, chain: &base.chain, rule: None }),
            Some((chain, rule)) => Fate::Dropped(Drop { base, chain, rule: Some(rule) }),
            None => Fate::Unknown,
        }
    }

    fn chain(&mut self, name: &str, depth: usize) -> Outcomes<'a> {
        let unknown = Outcomes { unknown: true, ..Outcomes::default() };
        let Some((name, rules)) = self.table.chains.get_key_value(name) else { return unknown };
        if let Some(known) = self.known.get(name.as_str()) {
            return known.clone();
        }
        let Some(deeper) = depth.checked_sub(1) else { return unknown };
        let mut outcomes = Outcomes::default();
        let mut reached = true;
        for rule in rules {
            let holds = rule
                .conditions
                .iter()
                .map(|condition| condition.holds(self.datagrams, self.untracked));
            let holds = holds.min().unwrap_or(Truth::Yes);
            if holds == Truth::No {
                continue;
            }
            let goes_on = match &rule.verdict {
                Verdict::Accept => {
                    outcomes.accepted = true;
                    false
                }
                Verdict::Refuse => {
                    outcomes.dropped = Some((name, rule));
                    false
                }
                Verdict::Return => {
                    outcomes.ended = true;
                    false
                }
                Verdict::Jump(target) => {
                    let called = self.chain(target, deeper);
                    outcomes.add(&called)
                }
                Verdict::Goto(target) => {
                    let called = self.chain(target, deeper);
                    outcomes.ended |= outcomes.add(&called);
                    false
                }
                Verdict::Unknown => {
                    outcomes.unknown = true;
                    true
                }
                Verdict::Continue => true,
            };
            if holds == Truth::Yes && !goes_on {
                reached = false;
                break;
            }
        }
        outcomes.ended |= reached;
        self.known.insert(name, outcomes.clone());
        outcomes
    }
}
