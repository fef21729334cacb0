//! Our nftables tables: converts them to the JSON of `nft -j`, and compares them with a listing.

use std::collections::BTreeMap;

use heddle_core::address::Family;
use serde_json::{Value, json};

use crate::nft::Seen;
use crate::repair::{Difference, Repair};
use crate::rule::{Action, Purpose, Rule, Side};

/// A table of ours in its wanted state: a chain for each purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedTable {
    pub(crate) family: Family,
    pub(crate) name: String,
    /// Empty if the table should not exist.
    pub(crate) chains: Vec<(Purpose, Vec<Rule>)>,
}

/// Returns a family's name in nftables.
pub(crate) const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Compares the listing with the wanted state. The repair is input for `nft -j -f -`, which applies
/// it atomically.
pub(crate) fn plan(seen: &Seen, wanted: &[WantedTable]) -> Option<Repair> {
    let mut commands = Vec::new();
    let mut differences = Vec::new();
    for (table, seen) in wanted.iter().zip(seen) {
        let (how, remedy) = match seen {
            None if table.chains.is_empty() => continue,
            None => ("was missing", "repaired"),
            Some(_) if table.chains.is_empty() => ("was left over", "removed"),
            Some(listed) if table.is_listed(listed) => continue,
            Some(_) => ("had other rules", "repaired"),
        };
        commands.extend(table.replace());
        let found = format!("table {} {} {how}", family_name(table.family), table.name);
        differences.push(Difference::new(found, remedy));
    }
    let input = json!({"nftables": commands}).to_string();
    (!differences.is_empty()).then_some(Repair { input, differences })
}

impl WantedTable {
    fn key(&self) -> Value {
        json!({"table": {"family": family_name(self.family), "name": self.name}})
    }

    /// Returns the objects of the table, in the order of their creation.
    fn objects(&self) -> Vec<Value> {
        let family = family_name(self.family);
        let mut objects = vec![self.key()];
        for (purpose, rules) in &self.chains {
            // The same as flannel's, with the numbers of the priorities srcnat and filter.
            let (chain, kind, hook, priority) = match purpose {
                Purpose::Masquerade => ("postrtg", "nat", "postrouting", 100),
                Purpose::Forward => ("forward", "filter", "forward", 0),
            };
            objects.push(json!({"chain": {
                "family": family, "table": self.name, "name": chain,
                "type": kind, "hook": hook, "prio": priority, "policy": "accept",
            }}));
            objects.extend(rules.iter().map(|rule| {
                json!({"rule": {
                    "family": family, "table": self.name, "chain": chain,
                    "comment": purpose.comment(), "expr": expressions(family, rule),
                }})
            }));
        }
        objects
    }

    /// Returns the commands that replace the table, whether or not it exists.
    fn replace(&self) -> Vec<Value> {
        // Deleting a table that does not exist is an error, so it is added first.
        let mut commands = vec![json!({"add": self.key()}), json!({"delete": self.key()})];
        if !self.chains.is_empty() {
            commands.extend(self.objects().into_iter().map(|object| json!({"add": object})));
        }
        commands
    }

    /// Returns true if nft's listing of the table matches the wanted state exactly.
    fn is_listed(&self, listed: &[Value]) -> bool {
        let (wanted, listed) = (Content::of(&self.objects()), Content::of(listed));
        wanted == listed
    }
}

/// The objects of a table, without details that vary between listings: handles, and the order of
/// chains.
#[derive(Debug, Default, PartialEq)]
struct Content {
    rules: BTreeMap<String, Vec<Value>>,
    others: BTreeMap<String, Value>,
}

impl Content {
    fn of(objects: &[Value]) -> Self {
        let mut content = Self::default();
        for object in objects {
            let Some((kind, properties)) = object.as_object().and_then(|o| o.iter().next()) else {
                continue;
            };
            let text = |key| properties.get(key).and_then(Value::as_str).unwrap_or_default();
            let normal = normal(properties.clone());
            match kind.as_str() {
                "metainfo" => {}
                "rule" => content.rules.entry(text("chain").to_owned()).or_default().push(normal),
                _ => drop(content.others.insert(format!("{kind} {}", text("name")), normal)),
            }
        }
        content
    }
}

/// Normalises an object to a form that does not depend on the version of nft.
fn normal(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.remove("handle");
    }
    let expressions = value.get_mut("expr").and_then(Value::as_array_mut);
    for statement in expressions.into_iter().flatten() {
        let flags = statement.get_mut("masquerade").and_then(|nat| nat.get_mut("flags"));
        if let Some(flags) = flags
            && flags.is_string()
        {
            // Some versions print a single flag without its list.
            *flags = json!([flags.take()]);
        }
    }
    value
}

fn expressions(family: &str, rule: &Rule) -> Vec<Value> {
    let mut expressions = Vec::new();
    if let Some(mark) = rule.mark {
        expressions.push(json!({"match": {
            "op": "==", "left": {"&": [{"meta": {"key": "mark"}}, mark]}, "right": mark,
        }}));
    }
    for (field, side) in [("saddr", rule.source), ("daddr", rule.destination)] {
        if let Some(Side { network, negated }) = side {
            expressions.push(json!({"match": {
                "op": if negated { "!=" } else { "==" },
                "left": {"payload": {"protocol": family, "field": field}},
                "right": {"prefix": {"addr": network.addr(), "len": network.prefix_len()}},
            }}));
        }
    }
    expressions.push(match rule.action {
        Action::Accept => json!({"accept": null}),
        Action::Return => json!({"return": null}),
        Action::Masquerade { random_fully: false } => json!({"masquerade": null}),
        Action::Masquerade { random_fully: true } => {
            json!({"masquerade": {"flags": ["fully-random"]}})
        }
    });
    expressions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FamilyRules;

    fn wanted() -> WantedTable {
        let v4 = FamilyRules {
            network: "10.244.0.0/16".parse().unwrap(),
            subnet: "10.244.8.0/24".parse().unwrap(),
        };
        let chains = Purpose::ALL.map(|purpose| (purpose, purpose.rules(&v4, true))).to_vec();
        WantedTable { family: Family::V4, name: "flannel-ipv4".into(), chains }
    }

    /// Returns the listing of nft 1.0.6: chains first, with handles, a single flag without its
    /// list.
    fn listed() -> Vec<Value> {
        let mut objects = wanted().objects();
        objects.sort_by_key(|object| object.get("rule").is_some());
        for (handle, object) in objects.iter_mut().enumerate() {
            let properties = object.as_object_mut().unwrap().values_mut().next().unwrap();
            properties["handle"] = json!(handle);
            let last = properties
                .get_mut("expr")
                .and_then(|expr| expr.as_array_mut()?.last_mut()?.get_mut("masquerade"));
            if let Some(masquerade) = last {
                *masquerade = json!({"flags": "fully-random"});
            }
        }
        objects.insert(0, json!({"metainfo": {"version": "1.0.6"}}));
        objects
    }

    #[test]
    fn listed_table_matches_wanted_table() {
        assert!(wanted().is_listed(&listed()));
    }

    #[test]
    fn any_difference_is_detected() {
        type Change = fn(&mut Vec<Value>);
        let changes: [(&str, Change); 6] = [
            ("a rule missing", |listed| drop(listed.pop())),
            ("a rule twice", |listed| listed.push(listed.last().unwrap().clone())),
            ("rules swapped", |listed| {
                let last = listed.len() - 1;
                listed.swap(last, last - 1);
            }),
            ("a foreign chain", |listed| {
                listed.push(json!({"chain": {"family": "ip", "name": "other"}}));
            }),
            ("another priority", |listed| listed[2]["chain"]["prio"] = json!(101)),
            ("a dormant table", |listed| listed[1]["table"]["flags"] = json!(["dormant"])),
        ];
        for (what, change) in changes {
            let mut listed = listed();
            change(&mut listed);
            assert!(!wanted().is_listed(&listed), "{what}");
        }
    }

    #[test]
    fn table_is_replaced_as_a_whole() {
        let commands = wanted().replace();
        let table = json!({"table": {"family": "ip", "name": "flannel-ipv4"}});
        assert_eq!(
            commands[..3],
            [json!({"add": table}), json!({"delete": table}), json!({"add": table})]
        );
        assert_eq!(commands.len(), 3 + 2 + 6 + 2);
    }

    #[test]
    fn unwanted_table_is_deleted() {
        let table = WantedTable { chains: Vec::new(), ..wanted() };
        let key = json!({"table": {"family": "ip", "name": "flannel-ipv4"}});
        assert_eq!(table.replace(), [json!({"add": key}), json!({"delete": key})]);
    }

    #[test]
    fn only_differing_tables_are_written() {
        let none = WantedTable { chains: Vec::new(), ..wanted() };
        for (table, seen, expected) in [
            (wanted(), Some(listed()), None),
            (wanted(), None, Some("table ip flannel-ipv4 was missing")),
            (wanted(), Some(Vec::new()), Some("table ip flannel-ipv4 had other rules")),
            (none.clone(), Some(listed()), Some("table ip flannel-ipv4 was left over")),
            (none, None, None),
        ] {
            let repair = plan(&vec![seen], &[table]);
            let found = repair.as_ref().map(|repair| repair.differences[0].found.as_str());
            assert_eq!(found, expected);
        }
    }
}
