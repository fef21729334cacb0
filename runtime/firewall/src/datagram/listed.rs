//! Reads tables from the listing of `nft` (libnftables-json(5)).

use std::collections::BTreeMap;
use std::net::IpAddr;

use heddle_core::address::Family;
use ipnet::IpNet;
use serde_json::Value as Json;

use crate::datagram::condition::{Condition, Direction, Field, Value};
use crate::datagram::table::{Base, Rule, Table};
use crate::nft::table::family_name;
use crate::rule::Verdict;
use crate::verdict::Filter;

/// Statements after which the packet goes on, and that neither compare nor decide.
const CONTINUING: [&str; 8] =
    ["comment", "counter", "ct helper", "dup", "flow", "last", "log", "secmark"];

/// Statements that compare the packet with something that is not known here.
const LIMITING: [&str; 5] = ["limit", "quota", "ct count", "meter", "ct timeout"];

/// Returns the tables among the listed objects that a family's packets pass.
pub(super) fn tables(objects: &[Json], family: Family) -> Vec<Table> {
    let sets = sets(objects);
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
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
        let key = (text("family"), text("table"));
        let name = format!("{} {}", key.0, key.1);
        let table = tables.entry(key.clone()).or_insert_with(|| Table {
            filter: Filter::Nftables,
            name,
            chains: BTreeMap::new(),
            bases: Vec::new(),
        });
        let chain = table.chains.entry(text(kind)).or_default();
        if kind == "chain" {
            let reader = Reader { sets: &sets, table: &key, family };
            let number = chain.last().map_or(1, |rule: &Rule| rule.number + 1);
            chain.extend(reader.rules(properties, number));
        } else {
            table.bases.extend(base(properties));
        }
    }
    tables.into_values().collect()
}

/// Returns the chain at a hook that datagrams pass. Chains of the type `nat` translate, and do not
/// filter.
fn base(chain: &Json) -> Option<Base> {
    let direction = match chain["hook"].as_str()? {
        "prerouting" | "input" => Direction::In,
        "output" | "postrouting" => Direction::Out,
        _ => return None,
    };
    let filters = chain["type"] != "nat";
    let name = chain["name"].as_str()?.to_owned();
    filters.then(|| Base { direction, chain: name, drops: chain["policy"] == "drop" })
}

/// Family, table and name of a set or map.
type SetName<'a> = (&'a str, &'a str, &'a str);

/// Elements of the named sets and maps.
type Sets<'a> = BTreeMap<SetName<'a>, &'a [Json]>;

fn sets(objects: &[Json]) -> Sets<'_> {
    objects.iter().filter_map(set).collect()
}

fn set(object: &Json) -> Option<(SetName<'_>, &[Json])> {
    let set = object.get("set").or_else(|| object.get("map"))?;
    let text = |key: &str| set[key].as_str();
    let elements = set["elem"].as_array().map(Vec::as_slice).unwrap_or_default();
    Some(((text("family")?, text("table")?, text("name")?), elements))
}

/// Reader of the rules of a table, for packets of a family.
struct Reader<'a> {
    sets: &'a Sets<'a>,
    table: &'a (String, String),
    family: Family,
}

impl Reader<'_> {
    /// Returns a rule of the listing, which is several if it has a map of verdicts.
    fn rules(&self, listed: &Json, number: usize) -> Vec<Rule> {
        let rule = |conditions: Vec<Condition>, verdict, untracks| Rule {
            conditions,
            verdict,
            untracks,
            text: listed["handle"].to_string(),
            number,
        };
        let (mut conditions, mut untracks, mut rules) = (Vec::new(), false, Vec::new());
        let statements = listed["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (kind, properties) in statements.iter().filter_map(only_property) {
            match kind {
                "match" => conditions.push(self.condition(properties)),
                "notrack" => untracks = true,
                "vmap" => {
                    for (condition, verdict) in self.entries(properties) {
                        let conditions = conditions.iter().cloned().chain([condition]);
                        rules.push(rule(conditions.collect(), verdict, false));
                    }
                }
                "xt" if properties["type"] == "match" && properties["name"] != "comment" => {
                    conditions.push(Condition::unknown());
                }
                "xt" if properties["type"] == "match" => {}
                // Of a mark or the like, and not of an address or a port.
                "mangle" if properties["key"].get("payload").is_none() => {}
                _ if LIMITING.contains(&kind) => conditions.push(Condition::unknown()),
                _ if CONTINUING.contains(&kind) => {}
                _ => {
                    conditions.extend(implied(kind, properties));
                    rules.push(rule(conditions, verdict(kind, properties), untracks));
                    return rules;
                }
            }
        }
        if untracks || rules.is_empty() {
            rules.push(rule(conditions, Verdict::Continue, untracks));
        }
        rules
    }

    /// Returns the entries of a map of verdicts, of which one at most applies.
    fn entries(&self, vmap: &Json) -> Vec<(Condition, Verdict)> {
        let Some(elements) = self.elements(&vmap["data"]) else {
            return vec![(Condition::unknown(), Verdict::Unknown)];
        };
        let entry = |element: &Json| {
            let condition = self.compare(&vmap["key"], std::slice::from_ref(&element[0]), false);
            let (kind, properties) = only_property(&element[1])?;
            Some((condition, verdict(kind, properties)))
        };
        elements.iter().filter_map(entry).collect()
    }

    fn condition(&self, properties: &Json) -> Condition {
        let negated = match properties["op"].as_str() {
            Some("==" | "in") => false,
            Some("!=") => true,
            _ => return Condition::unknown(),
        };
        let right = &properties["right"];
        match self.elements(right) {
            Some(values) => self.compare(&properties["left"], values, negated),
            None if right.as_str().is_some_and(|name| name.starts_with('@')) => {
                Condition::unknown()
            }
            None => self.compare(&properties["left"], std::slice::from_ref(right), negated),
        }
    }

    /// Returns the elements of a set: a list, an anonymous set, or `@name`.
    fn elements<'b>(&'b self, value: &'b Json) -> Option<&'b [Json]> {
        if let Some(name) = value.as_str().and_then(|text| text.strip_prefix('@')) {
            return self.sets.get(&(&self.table.0, &self.table.1, name)).copied();
        }
        let list = value.as_array().or_else(|| value.get("set")?.as_array());
        list.map(Vec::as_slice)
    }

    fn compare(&self, left: &Json, values: &[Json], negated: bool) -> Condition {
        let lefts = match left.get("concat").and_then(Json::as_array) {
            Some(lefts) => lefts.as_slice(),
            None => std::slice::from_ref(left),
        };
        let fields: Vec<_> = lefts.iter().map(|left| self.field(left)).collect();
        let values = values.iter().map(|found| {
            let found = found.get("elem").map_or(found, |element| &element["val"]);
            let parts = match found.get("concat").and_then(Json::as_array) {
                Some(parts) => parts.as_slice(),
                None => std::slice::from_ref(found),
            };
            fields.iter().zip(parts).map(|(field, part)| value(*field, part)).collect()
        });
        Condition { values: values.collect(), fields, negated }
    }

    /// Returns the property that an expression reads.
    fn field(&self, left: &Json) -> Field {
        let own_family = family_name(self.family);
        let Some((kind, properties)) = only_property(left) else { return Field::Unknown };
        let text = |key: &str| properties[key].as_str().unwrap_or_default();
        match (kind, text("key")) {
            ("meta", "iif" | "iifname") => Field::InputDevice,
            ("meta", "oif" | "oifname") => Field::OutputDevice,
            ("meta", "l4proto") => Field::Protocol,
            ("meta", "nfproto" | "protocol") => Field::Family,
            ("meta", "pkttype") => Field::PacketType,
            ("ct", "state") => Field::ConnectionState,
            ("ct", "status") => Field::ConnectionStatus,
            ("fib", _) if text("result") == "type" => match properties["flags"].as_array() {
                Some(flags) if flags == &["saddr"] => Field::SourceType,
                Some(flags) if flags == &["daddr"] => Field::DestinationType,
                _ => Field::Unknown,
            },
            ("payload", _) => match (text("protocol"), text("field")) {
                ("ip" | "ip6", _) if text("protocol") != own_family => Field::Foreign,
                ("ip" | "ip6", "saddr") => Field::Source,
                ("ip" | "ip6", "daddr") => Field::Destination,
                ("ip", "protocol") | ("ip6", "nexthdr") => Field::Protocol,
                ("udp" | "th", "sport") => Field::SourcePort,
                ("udp" | "th", "dport") => Field::DestinationPort,
                (
                    "tcp" | "icmp" | "icmpv6" | "igmp" | "sctp" | "dccp" | "esp" | "ah" | "udplite",
                    _,
                ) => Field::Foreign,
                _ => Field::Unknown,
            },
            _ => Field::Unknown,
        }
    }
}

/// Parses a value of a field.
fn value(field: Field, json: &Json) -> Value {
    let number = |json: &Json| json.as_u64();
    let address = |json: &Json| json.as_str()?.parse::<IpAddr>().ok();
    let range = json["range"].as_array().map(Vec::as_slice);
    let parsed = match (field, range) {
        (Field::Source | Field::Destination, Some([first, last])) => {
            address(first).zip(address(last)).map(|(first, last)| Value::Addresses(first, last))
        }
        (Field::Source | Field::Destination, _) => network(json).map(Value::Network),
        (_, Some([first, last])) => {
            number(first).zip(number(last)).map(|(first, last)| Value::Numbers(first..=last))
        }
        (Field::InputDevice | Field::OutputDevice, _) => {
            json.as_str().map(|name| match name.strip_suffix('*') {
                Some(beginning) => Value::Beginning(beginning.to_owned()),
                None => Value::Name(name.to_owned()),
            })
        }
        _ => {
            let by_number = number(json).map(|number| Value::Numbers(number..=number));
            by_number.or_else(|| json.as_str().map(|name| Value::Name(name.to_owned())))
        }
    };
    parsed.unwrap_or(Value::Unknown)
}

/// Parses an address or a prefix.
fn network(value: &Json) -> Option<IpNet> {
    let address = |value: &Json| value.as_str()?.parse().ok();
    match value.get("prefix") {
        Some(prefix) => {
            let length = prefix["len"].as_u64()?.try_into().ok()?;
            IpNet::new(address(&prefix["addr"])?, length).ok()
        }
        None => address(value).map(IpNet::from),
    }
}

/// Returns the condition that nft leaves out of a listing because a statement implies it: the
/// family or the protocol of what is rejected with a message of that family or protocol.
fn implied(kind: &str, properties: &Json) -> Option<Condition> {
    let (field, name) = match properties["type"].as_str()? {
        _ if kind != "reject" => return None,
        "icmp" => (Field::Family, "ipv4"),
        "icmpv6" => (Field::Family, "ipv6"),
        "tcp reset" => (Field::Protocol, "tcp"),
        _ => return None,
    };
    Some(Condition::new(field, [Value::Name(name.to_owned())]))
}

fn verdict(kind: &str, properties: &Json) -> Verdict {
    let target = || properties["target"].as_str().unwrap_or_default().to_owned();
    match kind {
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Refuse,
        "return" => Verdict::Return,
        "continue" => Verdict::Continue,
        "jump" => Verdict::Jump(target()),
        "goto" => Verdict::Goto(target()),
        _ => Verdict::Unknown,
    }
}

fn only_property(statement: &Json) -> Option<(&str, &Json)> {
    let (kind, properties) = statement.as_object()?.iter().next()?;
    Some((kind, properties))
}
