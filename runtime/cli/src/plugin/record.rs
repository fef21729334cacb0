//! `heddle plugin record`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use heddle_core::config::NetworkConfig;
use heddle_core::interface::{Requirements, Selection, existing_links, select};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::{NodeId, Underlay};
use heddle_flags::Flags;
use heddle_kernel::Kernel;
use heddle_store::Page;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::daemon::wait_for;
use crate::daemon_flags::DaemonFlags;
use crate::output;

/// Time limit for all reads from the store together. An unresponsive store fails earlier, by the
/// limit for each page.
const STORE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: DaemonFlags,
}

pub(super) fn record(arguments: Arguments) -> anyhow::Result<()> {
    let flags = arguments.flags.read();
    let scenario = wait_for(async {
        let reading = tokio::time::timeout(STORE_LIMIT, read(&flags)).await;
        let Ok(read) = reading else {
            bail!("store: no answer within {} s", STORE_LIMIT.as_secs());
        };
        let (text, others) = read?;
        let key = format!("{}/config", flags.lease.network_name());
        let config = NetworkConfig::parse(&text).with_context(|| key.clone())?;
        let id = flags.identity()?.id;
        let own = others.values().filter_map(|(lease, _)| lease.as_ref());
        let own = own.filter(|lease| lease.node_id.as_ref() == Some(&id));
        let published = own.flat_map(Lease::public_addresses).collect();
        let selection = Selection { published, ..flags.interface.selection() };
        let facts = Kernel::open()?.facts(selection.can_reach).await?;
        let underlay = select(&Requirements::of(&config.networks), &selection, &facts)?;
        let (own, leases) = sort_out(others, &id, &underlay);
        let own = own.context("this node has no lease yet; start heddled first")?;
        let links = existing_links(&facts.interfaces);
        let links: Vec<_> = links
            .iter()
            .map(|link| json!({ "name": link.name.as_str(), "kind": link.kind, "mac": link.mac }))
            .collect();
        let config: Box<RawValue> = serde_json::from_slice(&text).with_context(|| key)?;
        Ok(json!({
            "config": config,
            "node": {
                "id": id,
                "subnets": own.subnets().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "link": underlay.link.as_str(),
                "mtu": underlay.mtu,
                "addresses": underlay.addresses,
                "public-addresses": underlay.public_addresses.iter().collect::<Vec<_>>(),
                "links": links,
            },
            "leases": leases,
        }))
    })?;
    output::print(&output::json(&scenario)?)
}

/// Leases that are JSON: the parsed lease, if it is usable, and the JSON.
type Leases = BTreeMap<LeaseKey, (Option<Lease>, Value)>;

/// Reads the network config, and all leases that are JSON.
async fn read(flags: &Flags) -> anyhow::Result<(Vec<u8>, Leases)> {
    let store = flags.lease.store.open(flags.lease.etcd_options())?;
    let Some(text) = store.network_config().await? else {
        bail!("{}/config does not exist", flags.lease.network_name());
    };
    let mut leases = Leases::new();
    let mut visit = |page: Page| {
        if page.first {
            leases.clear();
        }
        leases.extend(page.records.iter().filter_map(|stored| {
            let record = &stored.record;
            let key = record.key.parse().ok()?;
            let value = serde_json::from_slice(&record.value).ok()?;
            Some((key, (record.lease(key).ok(), value)))
        }));
    };
    store.scan(&mut visit).await?;
    Ok((text, leases))
}

/// Separates this node's key from the other leases.
fn sort_out(
    leases: Leases,
    id: &NodeId,
    underlay: &Underlay,
) -> (Option<LeaseKey>, BTreeMap<String, Value>) {
    let (mut own, mut others) = (None, BTreeMap::new());
    for (key, (lease, value)) in leases {
        let ours = lease.is_some_and(|lease| {
            let addresses = lease.public_addresses();
            addresses.iter().any(|address| underlay.public_addresses.contains(address))
                && lease.node_id.as_ref().is_none_or(|owner| owner == id)
        });
        match ours {
            true => own = Some(key),
            false => drop(others.insert(key.to_string(), value)),
        }
    }
    (own, others)
}
