//! The keys of the v2 API, sorted by what they are to flannel.

use std::time::Duration;

use heddle_store::etcd::V2Node;

/// Name of the key of the network config, below the prefix.
const CONFIG: &str = "config";

/// Name of the directory of the leases, below the prefix.
const SUBNETS: &str = "subnets";

/// A value of the v2 API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Name below the prefix, or below `<prefix>/subnets/` for a record.
    pub(crate) name: String,
    pub(crate) value: String,
    /// The time until it expires. None for a key that never does.
    pub(crate) ttl: Option<Duration>,
}

/// A key that flannel does not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Odd {
    /// Name below the prefix.
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// Everything below the prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) config: Option<Entry>,
    /// The keys below `<prefix>/subnets/`, oldest first: overlapping leases are judged by their age.
    pub(crate) records: Vec<Entry>,
    pub(crate) odd: Vec<Odd>,
}

impl Source {
    /// Sorts the keys below the prefix, whose node is `root`.
    pub(crate) fn of(root: V2Node) -> Self {
        let mut source = Self::default();
        if !root.dir {
            source.odd.push(odd("(the prefix)", "has a value and no keys below it"));
            return source;
        }
        let base = root.key;
        for node in root.nodes {
            let name = below(&base, &node.key);
            match (name.as_str(), node.dir) {
                (CONFIG, false) => source.config = Some(entry(name, node)),
                (SUBNETS, true) => source.take_records(node),
                (_, true) => source.odd.push(directory(name, &node)),
                (_, false) => source.odd.push(odd(name, "no key of flannel's")),
            }
        }
        source
    }

    fn take_records(&mut self, subnets: V2Node) {
        let base = subnets.key;
        let mut nodes = subnets.nodes;
        nodes.sort_by_key(|node| node.created_index);
        for node in nodes {
            let name = below(&base, &node.key);
            if node.dir {
                self.odd.push(directory(format!("{SUBNETS}/{name}"), &node));
            } else {
                self.records.push(entry(name, node));
            }
        }
    }
}

fn entry(name: String, node: V2Node) -> Entry {
    let seconds = node.ttl.map(|ttl| u64::try_from(ttl).unwrap_or(0));
    Entry { name, value: node.value, ttl: seconds.map(Duration::from_secs) }
}

fn odd(name: impl Into<String>, reason: impl Into<String>) -> Odd {
    Odd { name: name.into(), reason: reason.into() }
}

/// Returns the report about a directory, with a hint if it is another network.
fn directory(name: String, node: &V2Node) -> Odd {
    let has_config = node.nodes.iter().any(|node| !node.dir && node.key.ends_with("/config"));
    let reason = match has_config {
        true => format!("a network of its own: import it with --etcd-prefix={}", node.key),
        false => format!("a directory; keys directly in it: {}", node.nodes.len()),
    };
    Odd { name, reason }
}

/// Returns the name of a key below a directory.
fn below(directory: &str, key: &str) -> String {
    let rest = key.strip_prefix(directory).unwrap_or(key);
    rest.trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, value: &str, ttl: Option<i64>, created_index: u64) -> V2Node {
        let (key, value) = (key.to_owned(), value.to_owned());
        V2Node { key, value, ttl, created_index, ..V2Node::default() }
    }

    fn directory(key: &str, nodes: Vec<V2Node>) -> V2Node {
        V2Node { key: key.to_owned(), dir: true, nodes, ..V2Node::default() }
    }

    #[test]
    fn every_key_is_config_record_or_odd() {
        let subnets = vec![
            value("/n/subnets/b", "2", Some(60), 9),
            directory("/n/subnets/d", vec![value("/n/subnets/d/x", "", None, 3)]),
            value("/n/subnets/a", "1", None, 5),
        ];
        let root = directory(
            "/n",
            vec![
                value("/n/config", "{}", None, 1),
                directory("/n/blue", vec![value("/n/blue/config", "{}", None, 2)]),
                value("/n/note", "x", None, 2),
                directory("/n/subnets", subnets),
            ],
        );
        let source = Source::of(root);
        let minute = Some(Duration::from_secs(60));
        let entry = |name: &str, value: &str, ttl| Entry {
            name: name.to_owned(),
            value: value.to_owned(),
            ttl,
        };
        assert_eq!(source.config, Some(entry("config", "{}", None)));
        assert_eq!(source.records, [entry("a", "1", None), entry("b", "2", minute)]);
        let odd: Vec<_> =
            source.odd.iter().map(|odd| format!("{}: {}", odd.name, odd.reason)).collect();
        assert_eq!(
            odd,
            [
                "blue: a network of its own: import it with --etcd-prefix=/n/blue",
                "note: no key of flannel's",
                "subnets/d: a directory; keys directly in it: 1",
            ]
        );
    }

    #[test]
    fn prefix_config_and_subnets_of_the_wrong_kind_are_odd() {
        let source = Source::of(value("/n", "x", None, 1));
        assert_eq!((source.config, source.odd.len()), (None, 1));
        let root = directory(
            "/n",
            vec![directory("/n/config", vec![]), value("/n/subnets", "x", None, 1)],
        );
        let source = Source::of(root);
        assert_eq!((source.config, source.odd.len()), (None, 2));
    }
}
