use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use heddle_core::record::{Age, Record};
use heddle_store::Handle;

use super::*;

const CONFIG: &str = r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}"#;

fn lease_value(last: u8) -> String {
    format!(
        r#"{{"PublicIP":"192.0.2.{last}","BackendType":"vxlan","BackendData":{{"VtepMAC":"9a:00:00:00:00:05"}}}}"#
    )
}

fn key(name: &str, value: &str, ttl: Option<i64>) -> V2Node {
    let key = format!("/n/{name}");
    V2Node { key, value: value.to_owned(), ttl, ..V2Node::default() }
}

fn tree(config: Option<&str>, records: Vec<V2Node>) -> V2Node {
    let subnets =
        V2Node { key: "/n/subnets".to_owned(), dir: true, nodes: records, ..V2Node::default() };
    let nodes = config.map(|config| key("config", config, None)).into_iter().chain([subnets]);
    V2Node { key: "/n".to_owned(), dir: true, nodes: nodes.collect(), ..V2Node::default() }
}

/// A small network: a lease, a reservation, and a key that is nothing.
fn network() -> V2Node {
    let records = vec![
        key("subnets/10.1.5.0-24", &lease_value(5), Some(7200)),
        key("subnets/10.1.6.0-24", &lease_value(6), None),
        key("subnets/note", "x", None),
    ];
    tree(Some(CONFIG), records)
}

/// An etcd in memory, in which time stands still.
#[derive(Debug, Default)]
struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<Place, Content>,
    revision: u64,
    writes: usize,
    /// Writes of somebody else just before the next writes, the last one first.
    rivals: Vec<(Place, String)>,
}

impl State {
    fn put(&mut self, place: Place, value: &str, remaining: Option<Duration>) {
        self.revision += 1;
        let (value, version) = (value.as_bytes().to_vec(), self.revision);
        self.keys.insert(place, Content { value, version, remaining });
    }
}

#[async_trait]
impl Target for Memory {
    async fn records(&self) -> Result<Vec<Stored>, StoreError> {
        let state = self.state.lock().unwrap();
        let records = state.keys.iter().filter_map(|(place, content)| {
            let Place::Record(key) = place else { return None };
            let (key, value) = (key.clone(), content.value.clone());
            let record = Record { key, value, unread: None, age: Age::default() };
            Some(Stored { record, handle: Handle { version: content.version, lease_id: None } })
        });
        Ok(records.collect())
    }

    async fn content(&self, place: &Place) -> Result<Option<Content>, StoreError> {
        Ok(self.state.lock().unwrap().keys.get(place).cloned())
    }

    async fn write(
        &self,
        place: &Place,
        value: &[u8],
        ttl: Option<Duration>,
        before: Option<u64>,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock().unwrap();
        if let Some((place, value)) = state.rivals.pop() {
            state.put(place, &value, Some(Duration::from_secs(7200)));
        }
        if state.keys.get(place).map(|content| content.version) != before {
            return Ok(false);
        }
        state.put(place.clone(), std::str::from_utf8(value).unwrap(), ttl);
        state.writes += 1;
        Ok(true)
    }
}

async fn run(root: V2Node, target: &Memory, options: Options) -> Report {
    let mut report = Report::default();
    import(root, target, options, &mut report).await.unwrap();
    report
}

#[tokio::test(start_paused = true)]
async fn second_run_changes_nothing() {
    let target = Memory::default();
    let report = run(network(), &target, Options::default()).await;
    assert_eq!(report.summary(), "copied: 3; left out: 1");
    assert!(!report.is_complete());
    assert_eq!(report.first_expiry(), Some(Duration::from_secs(7200)));
    let keys = target.state.lock().unwrap().keys.clone();
    let report = run(network(), &target, Options { overwrite: true, ..Options::default() }).await;
    assert_eq!(report.summary(), "there already: 3; left out: 1");
    assert_eq!(target.state.lock().unwrap().keys, keys);
}

#[tokio::test(start_paused = true)]
async fn dry_run_says_the_same_and_writes_nothing() {
    let target = Memory::default();
    let options = Options { dry_run: true, ..Options::default() };
    let report = run(network(), &target, options).await;
    assert_eq!(report.summary(), "would copy: 3; left out: 1");
    assert!(target.state.lock().unwrap().keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn key_written_meanwhile_is_judged_again() {
    let place = Place::Record("10.1.5.0-24".to_owned());
    for (value, expected) in
        [(lease_value(9), Outcome::Conflict), (lease_value(5), Outcome::Present)]
    {
        let target = Memory::default();
        target.state.lock().unwrap().rivals = vec![(place.clone(), value)];
        let root =
            tree(Some(CONFIG), vec![key("subnets/10.1.5.0-24", &lease_value(5), Some(7200))]);
        // The rival comes before the config is written, which the run does first.
        let report = run(root, &target, Options::default()).await;
        assert_eq!(report.lines[1].outcome, expected, "{report:?}");
        assert_eq!(target.state.lock().unwrap().writes, 1, "the config alone");
    }
}

#[tokio::test(start_paused = true)]
async fn key_written_again_and_again_ends_the_run() {
    let target = Memory::default();
    let other = r#"{"Network":"10.9.0.0/16"}"#.to_owned();
    target.state.lock().unwrap().rivals = vec![(Place::Config, other); RACES];
    let options = Options { overwrite: true, ..Options::default() };
    let error = import(network(), &target, options, &mut Report::default()).await.unwrap_err();
    assert!(matches!(error, ImportError::Contested(name) if name == "config"));
}

#[tokio::test(start_paused = true)]
async fn leases_are_judged_by_the_config_that_v3_has_then() {
    let other = r#"{"Network":"10.9.0.0/16"}"#;
    for (overwrite, expected) in
        [(false, "conflict: 1; left out: 3"), (true, "copied: 2; overwritten: 1; left out: 1")]
    {
        let target = Memory::default();
        target.state.lock().unwrap().put(Place::Config, other, None);
        let options = Options { overwrite, ..Options::default() };
        assert_eq!(run(network(), &target, options).await.summary(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_usable_config_nothing_is_copied() {
    for (config, expected) in [(None, "does not exist"), (Some("{}"), "`Network` is missing")] {
        let records = vec![key("subnets/10.1.5.0-24", &lease_value(5), Some(7200))];
        let (target, mut report) = (Memory::default(), Report::default());
        let root = tree(config, records);
        let failed = import(root.clone(), &target, Options::default(), &mut report).await;
        let error = failed.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(target.state.lock().unwrap().keys.is_empty() && report.lines.is_empty());
        target.state.lock().unwrap().put(Place::Config, CONFIG, None);
        let report = run(root, &target, Options::default()).await;
        let expected = if config.is_some() { "copied: 1; left out: 1" } else { "copied: 1" };
        assert_eq!(report.summary(), expected);
    }
}
