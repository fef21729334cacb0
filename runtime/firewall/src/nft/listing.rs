//! Determines the effect of everybody's chains at the forward hook on packets.

use std::collections::BTreeMap;

use heddle_core::address::Family;
use ipnet::IpNet;
use serde_json::Value;

use crate::nft::table::family_name;
use crate::rule::{Chains, Side, Step, Verdict};

/// A table that applies to a family's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListedTable {
    /// `ip`, `ip6` or `inet`.
    pub(crate) family: String,
    pub(crate) name: String,
    pub(crate) chains: Chains,
    /// The chains at the forward hook; true if the policy is drop.
    pub(crate) forward: BTreeMap<String, bool>,
}

/// Returns the tables among the listed objects that apply to a family's packets.
pub(crate) fn tables(objects: &[Value], family: Family) -> Vec<ListedTable> {
    let mut tables: BTreeMap<(String, String), ListedTable> = BTreeMap::new();
    for object in objects {
        let (kind, properties) = match (object.get("chain"), object.get("rule")) {
            (Some(chain), _) => ("name", chain),
            (_, Some(rule)) => ("chain", rule),
            _ => continue,
        };
        let text = |key: &str| properties[key].as_str().unwrap_or_default().to_owned();
        if !["inet", family_name(family)].contains(&text("family").as_str()) {
            continue;
        }
        let table = tables.entry((text("family"), text("table"))).or_default();
        (table.family, table.name) = (text("family"), text("table"));
        let chain = table.chains.entry(text(kind)).or_default();
        if kind == "chain" {
            chain.push(step(&properties["expr"], family));
        } else if properties["hook"] == "forward" {
            table.forward.insert(text("name"), properties["policy"] == "drop");
        }
    }
    tables.into_values().collect()
}

/// Returns the effect of a rule on packets of a family.
fn step(statements: &Value, family: Family) -> Step {
    let mut step = Step::default();
    let statements = statements.as_array().map(Vec::as_slice).unwrap_or_default();
    for (kind, properties) in statements.iter().filter_map(only_property) {
        match kind {
            "counter" | "log" => {}
            "xt" if properties["name"] == "comment" => {}
            "accept" => step.verdict = Verdict::Accept,
            "drop" => step.verdict = Verdict::Refuse,
            "reject" => {
                step.verdict = Verdict::Refuse;
                step.narrower |= rejects_only_some(properties, family);
            }
            "return" => step.verdict = Verdict::Return,
            "jump" => step.verdict = Verdict::Jump(target(properties)),
            "goto" => step.verdict = Verdict::Goto(target(properties)),
            "match" => match condition(properties, family) {
                Some(Condition::Always) => {}
                Some(Condition::Source(side)) if step.source.is_none() => step.source = Some(side),
                Some(Condition::Destination(side)) if step.destination.is_none() => {
                    step.destination = Some(side);
                }
                _ => step.narrower = true,
            },
            // Others, such as maps and limits, do not apply to every packet.
            _ => step.narrower = true,
        }
    }
    step
}

/// Returns true if the kind of rejection implies a condition that not every packet of the family
/// meets. nft leaves `meta nfproto ipv6` out of a listing before `reject with icmpv6`.
fn rejects_only_some(reject: &Value, family: Family) -> bool {
    match reject["type"].as_str() {
        Some("icmp") => family == Family::V6,
        Some("icmpv6") => family == Family::V4,
        Some("tcp reset") => true,
        _ => false,
    }
}

enum Condition {
    Always,
    Source(Side),
    Destination(Side),
}

/// Parses a condition on an address, or one that every packet of the family meets. `None` for any
/// other condition.
fn condition(properties: &Value, family: Family) -> Option<Condition> {
    let negated = match properties["op"].as_str()? {
        "==" => false,
        "!=" => true,
        _ => return None,
    };
    let (left, right) = (&properties["left"], &properties["right"]);
    let nfproto = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    if left["meta"]["key"] == "nfproto" && right == nfproto && !negated {
        return Some(Condition::Always);
    }
    if left["payload"]["protocol"] != family_name(family) {
        return None;
    }
    let side = Side { network: network(right)?, negated };
    match left["payload"]["field"].as_str()? {
        "saddr" => Some(Condition::Source(side)),
        "daddr" => Some(Condition::Destination(side)),
        _ => None,
    }
}

/// Parses an address or a prefix. `None` for a set, a range or a name.
fn network(value: &Value) -> Option<IpNet> {
    let address = |value: &Value| value.as_str()?.parse().ok();
    match value.get("prefix") {
        Some(prefix) => {
            let length = prefix["len"].as_u64()?.try_into().ok()?;
            IpNet::new(address(&prefix["addr"])?, length).ok()
        }
        None => address(value).map(IpNet::from),
    }
}

fn target(properties: &Value) -> String {
    properties["target"].as_str().unwrap_or_default().to_owned()
}

fn only_property(statement: &Value) -> Option<(&str, &Value)> {
    let (kind, properties) = statement.as_object()?.iter().next()?;
    Some((kind, properties))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(family: &str, name: &str, hook: Option<&str>, policy: &str) -> Value {
        json!({"chain": {
            "family": family, "table": "t", "name": name, "hook": hook, "policy": policy,
        }})
    }

    fn rule(chain: &str, expr: Value) -> Value {
        json!({"rule": {"family": "inet", "table": "t", "chain": chain, "expr": expr}})
    }

    #[test]
    fn forward_chains_are_found_with_policy() {
        let objects = [
            chain("inet", "forward", Some("forward"), "drop"),
            chain("inet", "input", Some("input"), "drop"),
            chain("inet", "zones", None, ""),
            chain("ip6", "other", Some("forward"), "drop"),
        ];
        let found = tables(&objects, Family::V4);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].forward, BTreeMap::from([("forward".into(), true)]));
        assert_eq!(tables(&objects, Family::V6).len(), 2);
    }

    #[test]
    fn rule_conditions_on_addresses_are_parsed() {
        let saddr = json!({"payload": {"protocol": "ip", "field": "saddr"}});
        let nfproto = json!({"meta": {"key": "nfproto"}});
        let prefix = json!({"prefix": {"addr": "10.244.0.0", "len": 16}});
        let state = json!({"ct": {"key": "state"}});
        let objects = [
            chain("inet", "forward", Some("forward"), "accept"),
            rule(
                "forward",
                json!([
                    {"match": {"op": "==", "left": nfproto, "right": "ipv4"}},
                    {"match": {"op": "!=", "left": saddr, "right": prefix}},
                    {"counter": {"packets": 1, "bytes": 2}},
                    {"goto": {"target": "zones"}}
                ]),
            ),
            rule(
                "forward",
                json!([
                    {"match": {"op": "in", "left": state, "right": "established"}},
                    {"accept": null}
                ]),
            ),
            rule("forward", json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}])),
        ];
        let network = "10.244.0.0/16".parse().unwrap();
        assert_eq!(
            tables(&objects, Family::V4)[0].chains["forward"],
            [
                Step {
                    source: Some(Side { network, negated: true }),
                    verdict: Verdict::Goto("zones".into()),
                    ..Step::default()
                },
                Step { narrower: true, verdict: Verdict::Accept, ..Step::default() },
                Step { verdict: Verdict::Refuse, ..Step::default() },
            ]
        );
        // The same rules, for a packet of the other family.
        assert!(tables(&objects, Family::V6)[0].chains["forward"][0].narrower);
    }

    #[test]
    fn rejection_with_message_of_a_family_concerns_that_family() {
        for (kind, concerned) in [
            (json!({"type": "icmp", "expr": "host-unreachable"}), [true, false]),
            (json!({"type": "icmpv6", "expr": "no-route"}), [false, true]),
            (json!({"type": "icmpx", "expr": "admin-prohibited"}), [true, true]),
            (json!({"type": "tcp reset"}), [false, false]),
            (Value::Null, [true, true]),
        ] {
            let objects = [
                chain("inet", "forward", Some("forward"), "accept"),
                rule("forward", json!([{"reject": kind}])),
            ];
            let refuses = |family| !tables(&objects, family)[0].chains["forward"][0].narrower;
            assert_eq!([Family::V4, Family::V6].map(refuses), concerned, "{kind}");
        }
    }
}
