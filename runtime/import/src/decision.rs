//! The fate of one key, given what the v3 API holds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use heddle_core::allocation::overlap;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::text::{list, one_line};
use heddle_store::Stored;
use heddle_store::etcd::{Content, Place};
use ipnet::IpNet;
use serde_json::Value;

use crate::report::Outcome;
use crate::source::Entry;

/// Difference between the times that a lease has left in both APIs from which on it is extended. Far
/// more than two runs in a row differ by, and less than any renewal of flannel's adds.
const SLACK: Duration = Duration::from_secs(60);

/// Length limit of foreign text in a reason, in characters.
const SHOWN: usize = 200;

/// The backend that flannel uses without `Backend` (flannel's `subnet/config.go`).
const IMPLIED: &str = r#""Backend":{"Type":"udp"}"#;

/// The operator's wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Decides and reports, and writes nothing.
    pub dry_run: bool,
    /// Replaces keys of the v3 API that differ, except leases of nodes with Heddle.
    pub overwrite: bool,
}

/// A key to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) place: Place,
    pub(crate) value: String,
    pub(crate) ttl: Option<Duration>,
    /// The lease that the value is. None for the config.
    pub(crate) lease: Option<Lease>,
    /// A description for the report.
    pub(crate) detail: String,
}

/// A decision about an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write the item over this version, or create it. Then this has become of it.
    Write(Option<u64>, Outcome),
    /// Nothing; this became of it, for this reason.
    Leave(Outcome, String),
}

fn conflict(reason: String) -> Decision {
    Decision::Leave(Outcome::Conflict, reason)
}

fn present(reason: impl Into<String>) -> Decision {
    Decision::Leave(Outcome::Present, reason.into())
}

/// Returns the config as an item, and what it says.
///
/// # Errors
///
/// The reason why it cannot be used.
pub(crate) fn config_item(entry: &Entry) -> Result<(Item, NetworkConfig), String> {
    let config = NetworkConfig::parse(entry.value.as_bytes()).map_err(|error| error.to_string())?;
    let (value, note) = match with_backend(&entry.value) {
        Some(value) => (value, format!(", with {IMPLIED} added, which flannel means without")),
        None => (entry.value.clone(), String::new()),
    };
    let networks = list(config.networks.into_iter().map(|overlay| overlay.network));
    let detail = format!("Network {networks}{note}");
    Ok((Item { place: Place::Config, value, ttl: None, lease: None, detail }, config))
}

/// Returns a config that lacks `Backend` with the one that flannel uses then. Heddle uses another.
fn with_backend(config: &str) -> Option<String> {
    let Ok(Value::Object(members)) = serde_json::from_str(config) else { return None };
    if members.keys().any(|key| key.eq_ignore_ascii_case("Backend")) {
        return None;
    }
    let rest = config.trim_end().strip_suffix('}')?;
    Some(format!("{},{IMPLIED}}}", rest.trim_end()))
}

/// Returns a record as an item.
///
/// # Errors
///
/// The reason why it is no lease for `network`.
pub(crate) fn record_item(entry: &Entry, network: IpNet) -> Result<Item, String> {
    let key: LeaseKey = entry.name.parse().map_err(no_key)?;
    let subnets = key.subnets();
    if subnets.v6.is_some() {
        return Err("has an IPv6 subnet, which flannel does not write by the v2 API".to_owned());
    }
    let lease = Lease::from_value(key, entry.value.as_bytes()).map_err(|e| e.to_string())?;
    if let Some(subnet) = subnets.v4
        && !network.contains(&subnet)
    {
        return Err(format!("outside `Network`, {network}"));
    }
    let kind = if entry.ttl.is_some() { "lease" } else { "reservation" };
    Ok(Item {
        place: Place::Record(entry.name.clone()),
        value: entry.value.clone(),
        ttl: entry.ttl,
        detail: format!("{kind} of {}", lease.owner()),
        lease: Some(lease),
    })
}

fn no_key(_: impl Sized) -> String {
    "not a subnet: expected a name such as 10.244.8.0-24".to_owned()
}

/// The records of the v3 API that the v2 API does not have.
#[derive(Debug, Default)]
pub(crate) struct Others {
    by_address: BTreeMap<IpAddr, LeaseKey>,
    keys: Vec<LeaseKey>,
}

impl Others {
    /// Returns those of `records` whose keys `has` does not know.
    pub(crate) fn of(records: &[Stored], has: impl Fn(&str) -> bool) -> Self {
        let mut others = Self::default();
        for stored in records.iter().filter(|stored| !has(stored.key())) {
            let Ok(key) = stored.key().parse::<LeaseKey>() else { continue };
            let Ok(lease) = stored.record.lease(key) else { continue };
            others.keys.push(key);
            let addresses = lease.public_addresses();
            others.by_address.extend(addresses.into_iter().map(|address| (address, key)));
        }
        others
    }

    /// Returns the reason why a lease cannot be created beside these, if there is one.
    pub(crate) fn object_to(&self, lease: &Lease) -> Option<String> {
        let addresses = lease.public_addresses();
        let holder = addresses.iter().find_map(|address| {
            self.by_address.get(address).map(|key| format!("{address} has {key} in v3"))
        });
        holder.or_else(|| {
            let other = self.keys.iter().find(|key| overlap(**key, lease.key))?;
            Some(format!("overlaps {other} in v3"))
        })
    }
}

/// Returns what to do about an item, whose key holds this in the v3 API.
pub(crate) fn decide(
    item: &Item,
    found: Option<&Content>,
    others: &Others,
    overwrite: bool,
) -> Decision {
    let Some(found) = found else {
        return match item.lease.as_ref().and_then(|lease| others.object_to(lease)) {
            Some(reason) => conflict(reason),
            None => Decision::Write(None, Outcome::Copied),
        };
    };
    let (decision, may_overwrite) = match &item.lease {
        None => (about_config(item, found), true),
        Some(lease) => about_lease(item, lease, found),
    };
    match decision {
        Decision::Leave(Outcome::Conflict, _) if overwrite && may_overwrite => {
            Decision::Write(Some(found.version), Outcome::Overwritten)
        }
        other => other,
    }
}

fn about_config(item: &Item, found: &Content) -> Decision {
    let theirs = serde_json::from_slice::<Value>(&found.value).ok();
    if theirs.is_some() && theirs == serde_json::from_str(&item.value).ok() {
        return present(item.detail.clone());
    }
    let shown = one_line(&String::from_utf8_lossy(&found.value), SHOWN);
    conflict(format!("v3 has another config: {shown}"))
}

/// Also returns true if the operator may have the record replaced: a node with Heddle keeps its own.
fn about_lease(item: &Item, lease: &Lease, found: &Content) -> (Decision, bool) {
    let theirs = match Lease::from_value(lease.key, &found.value) {
        Ok(theirs) => theirs,
        Err(error) => return (conflict(format!("v3 has no lease there: {error}")), true),
    };
    let (owner, foreign) = (theirs.owner(), theirs.node_id.is_none());
    if !theirs.shares_address(lease) {
        return (conflict(format!("v3 has it for {owner}, v2 for {}", lease.owner())), foreign);
    }
    let decision = match (item.ttl, found.remaining) {
        (None, Some(left)) => {
            let left = left.as_secs();
            conflict(format!("a reservation in v2, and in v3 a lease of {owner} for {left} s"))
        }
        (_, None) if foreign && item.ttl.is_some() && says_all_of(item, found) => {
            present(format!("a reservation of {owner} in v3"))
        }
        _ if !foreign => present(format!("taken over by {owner}")),
        _ if !says_all_of(item, found) => {
            conflict(format!("v3 has other backend data for {owner}"))
        }
        (Some(ttl), Some(left)) if left + SLACK < ttl => {
            Decision::Write(Some(found.version), Outcome::Extended)
        }
        _ => present(item.detail.clone()),
    };
    (decision, foreign)
}

/// Returns true if the value in the v3 API has every member of the item's: later releases of flannel
/// add members.
fn says_all_of(item: &Item, found: &Content) -> bool {
    fn contains(whole: &Value, part: &Value) -> bool {
        match (whole, part) {
            (Value::Object(whole), Value::Object(part)) => part
                .iter()
                .all(|(key, value)| whole.get(key).is_some_and(|found| contains(found, value))),
            _ => whole == part,
        }
    }
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
    match (parse(&found.value), parse(item.value.as_bytes())) {
        (Some(whole), Some(part)) => contains(&whole, &part),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
