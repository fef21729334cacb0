//! Reads tables from the output of `iptables-save`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::datagram::condition::{Condition, Direction, Field, Value};
use crate::datagram::table::{Base, Rule, Table};
use crate::iptables::saved::{self, Ruleset, SavedRule};
use crate::rule::Verdict;
use crate::verdict::Filter;

/// The tables with chains at the hooks that datagrams from and to the host pass, in the order of
/// the hooks. Those of `nat` translate, and do not filter.
const HOOKS: [(&str, &[(Direction, &str)]); 4] = [
    ("raw", &[(Direction::In, "PREROUTING"), (Direction::Out, "OUTPUT")]),
    (
        "mangle",
        &[
            (Direction::In, "PREROUTING"),
            (Direction::In, "INPUT"),
            (Direction::Out, "OUTPUT"),
            (Direction::Out, "POSTROUTING"),
        ],
    ),
    ("filter", &[(Direction::In, "INPUT"), (Direction::Out, "OUTPUT")]),
    ("security", &[(Direction::In, "INPUT"), (Direction::Out, "OUTPUT")]),
];

/// Targets after which the packet goes on to the next rule.
const CONTINUING: [&str; 22] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "NOTRACK",
    "RATEEST",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TOS",
    "TTL",
    "ULOG",
];

/// Returns the tables that filter.
pub(super) fn tables(ruleset: &Ruleset, filter: Filter) -> Vec<Table> {
    let table = |(name, hooks): &(&str, &[(Direction, &str)])| {
        let table = ruleset.table(name)?;
        let base = |(direction, chain): &(Direction, &str)| {
            let policy = &table.chains.get(*chain)?.policy;
            let chain = (*chain).to_owned();
            Some(Base { direction: *direction, chain, drops: policy == "DROP" })
        };
        let chain = |(name, chain): (&String, &saved::Chain)| {
            let rules = chain.rules.iter().zip(1..).map(|(rule, number)| read(rule, number, table));
            (name.clone(), rules.collect())
        };
        Some(Table {
            filter,
            name: (*name).to_owned(),
            chains: table.chains.iter().map(chain).collect(),
            bases: hooks.iter().filter_map(base).collect(),
        })
    };
    HOOKS.iter().filter_map(table).collect()
}

fn read(saved: &SavedRule, number: usize, table: &saved::Table) -> Rule {
    let (conditions, verdict) = parse(&saved.arguments, table);
    let mut words = saved.arguments.iter();
    Rule {
        conditions,
        verdict,
        untracks: words.any(|word| word == "NOTRACK" || word == "--notrack"),
        text: saved.text.clone(),
        number,
    }
}

/// Parses the conditions and the target. An option that is not known here is a condition that may
/// hold.
fn parse(arguments: &[String], table: &saved::Table) -> (Vec<Condition>, Verdict) {
    let mut conditions = Vec::new();
    let mut words = arguments.iter().map(String::as_str).peekable();
    let mut negated = false;
    while let Some(word) = words.next() {
        match word {
            "!" => {
                negated = true;
                continue;
            }
            // The match's own options follow, and those of other matches are unknown.
            "-m" | "--comment" => drop(words.next()),
            "-j" | "-g" => {
                let target = words.next().unwrap_or_default();
                return (conditions, verdict(word, target, table));
            }
            _ if !word.starts_with('-') => {}
            _ => {
                let found = words.peek().and_then(|argument| condition(word, argument));
                let found = found.unwrap_or_else(Condition::unknown);
                conditions.push(Condition { negated, ..found });
                words.next_if(|argument| !argument.starts_with('-') && *argument != "!");
            }
        }
        negated = false;
    }
    (conditions, Verdict::Continue)
}

fn condition(option: &str, argument: &str) -> Option<Condition> {
    let names = || argument.split(',').map(|name| Value::Name(name.to_ascii_lowercase()));
    let condition = match option {
        "-i" => Condition::new(Field::InputDevice, [device(argument)]),
        "-o" => Condition::new(Field::OutputDevice, [device(argument)]),
        "-s" => Condition::new(Field::Source, [Value::Network(network(argument)?)]),
        "-d" => Condition::new(Field::Destination, [Value::Network(network(argument)?)]),
        "-p" => Condition::new(Field::Protocol, [protocol(argument)]),
        "--sport" | "--sports" => Condition::new(Field::SourcePort, ports(argument)?),
        "--dport" | "--dports" => Condition::new(Field::DestinationPort, ports(argument)?),
        "--state" | "--ctstate" => Condition::new(Field::ConnectionState, names()),
        "--pkt-type" => Condition::new(Field::PacketType, names()),
        "--src-type" => Condition::new(Field::SourceType, names()),
        "--dst-type" => Condition::new(Field::DestinationType, names()),
        _ => return None,
    };
    Some(condition)
}

fn device(name: &str) -> Value {
    match name.strip_suffix('+') {
        Some(beginning) => Value::Beginning(beginning.to_owned()),
        None => Value::Name(name.to_owned()),
    }
}

/// Parses an address or a network. `None` for a mask with gaps.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn protocol(text: &str) -> Value {
    match text.parse::<u64>() {
        Ok(number) => Value::Numbers(number..=number),
        Err(_) => Value::Name(text.to_owned()),
    }
}

fn ports(text: &str) -> Option<Vec<Value>> {
    let range = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        Some(Value::Numbers(first.parse().ok()?..=last.parse().ok()?))
    };
    text.split(',').map(range).collect()
}

fn verdict(option: &str, target: &str, table: &saved::Table) -> Verdict {
    match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Refuse,
        "RETURN" => Verdict::Return,
        _ if CONTINUING.contains(&target) => Verdict::Continue,
        _ if !table.chains.contains_key(target) => Verdict::Unknown,
        _ if option == "-g" => Verdict::Goto(target.to_owned()),
        _ => Verdict::Jump(target.to_owned()),
    }
}
