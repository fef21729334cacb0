//! Measurement of a plugin's calls.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_core::address::Family;
use heddle_core::family::PerFamily;
use heddle_core::lease::{Lease, LeaseFamily, LeaseKey};
use heddle_core::site::Site;
use heddle_join::Loaded;
use heddle_plugin::{
    Advertisements, CallError, PacketInstance, PacketPlugin, Plugin, Reason, Role, View,
};
use ipnet::IpNet;
use serde_json::json;

use crate::scenario::InvalidScenario;
use crate::{Scenario, Settings, on_thread};

/// Number of measurements of each call.
const TIMES: usize = 200;

/// Packets in a batch: the maximum that the host passes in one call.
const BATCH: usize = 64;

/// Size of a transformed packet, in bytes.
const PACKET: u32 = 1400;

/// Durations of one kind of call.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Name of the measured call.
    pub what: String,
    /// Duration of each call; never empty.
    pub times: Vec<Duration>,
}

/// Error that prevents the measurement.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The plugin cannot be started.
    #[error(transparent)]
    Plugin(#[from] heddle_plugin::PluginError),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A call in the packet path failed.
    #[error("the packet path: {0}")]
    Packets(Reason),
    /// The scenario for the plugin is invalid.
    #[error(transparent)]
    Scenario(#[from] InvalidScenario),
}

impl Measurement {
    async fn of<T>(
        what: impl Into<String>,
        mut call: impl AsyncFnMut() -> Result<T, CallError>,
    ) -> Result<Self, MeasureError> {
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let start = Instant::now();
            call().await?;
            times.push(start.elapsed());
        }
        Ok(Self { what: what.into(), times })
    }

    fn of_packets(
        what: impl Into<String>,
        mut call: impl FnMut() -> Result<(), Reason>,
    ) -> Result<Self, MeasureError> {
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let start = Instant::now();
            call().map_err(MeasureError::Packets)?;
            times.push(start.elapsed());
        }
        Ok(Self { what: what.into(), times })
    }
}

/// Measures a plugin's calls. Each planning call uses a fresh instance, as in the daemon, and
/// includes the way to the plugin's thread and back; `plan-peer` is the share of one peer in one
/// request for all of `peers`.
///
/// Must be called on a Tokio runtime.
///
/// # Errors
///
/// If the plugin cannot be started, or a call fails.
pub async fn measure(plugin: &Plugin, peers: u32) -> Result<Vec<Measurement>, MeasureError> {
    match plugin.manifest().world.role() {
        Role::Backend => backend(plugin, peers).await,
        Role::Emitter => emitter(plugin).await,
    }
}

async fn backend(plugin: &Plugin, peers: u32) -> Result<Vec<Measurement>, MeasureError> {
    let settings = Settings::least(&plugin.manifest().name).backend;
    let scenario = Scenario::ordinary(&[Family::V4], &settings)?;
    let Scenario { node: (key, node), nodes, .. } = &scenario;
    let site = scenario.site(node);
    let backend = plugin.backend()?;
    let mut rows =
        vec![Measurement::of("advertise", async || backend.advertise(&site).await).await?];
    let advertised = Loaded { site, planner: &backend }.advertise().await?;
    let own = advertised.lease(*key, None);
    let leased = advertised.with_lease(own);
    let site = leased.site.clone();
    rows.push(Measurement::of("plan-node", async || backend.plan_node(&site).await).await?);
    let planned = leased.plan().await?;
    let advertised = match nodes.first() {
        Some((_, other)) => backend.advertise(&scenario.site(other)).await?,
        None => return Ok(rows),
    };
    let leases: Vec<_> = (0..peers).filter_map(|number| peer(&advertised, number)).collect();
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let answers = planned.plan_peers(leases.clone()).await;
        times.push(start.elapsed() / peers.max(1));
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    rows.push(Measurement { what: format!("plan-peer, one of {peers}"), times });
    let Some(packets) = plugin.packets()? else { return Ok(rows) };
    // Packet functions must not be called from asynchronous code.
    rows.extend(on_thread(|| packet_path(&packets, &site, &leases))?);
    Ok(rows)
}

fn packet_path(
    packets: &PacketPlugin,
    site: &Site,
    leases: &[Lease],
) -> Result<Vec<Measurement>, MeasureError> {
    let instance = || packets.instance(site, leases).map_err(MeasureError::Packets);
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        instance()?;
        times.push(start.elapsed());
    }
    let what = format!("update with {} peers", leases.len());
    let mut rows = vec![Measurement { what, times }];
    rows.extend(steer(&mut instance()?, leases)?);
    if packets.transforms() {
        rows.extend(transform(&mut instance()?)?);
    }
    Ok(rows)
}

/// Returns the lease of a fictitious peer, with the advertisements of another node.
fn peer(advertised: &Advertisements, number: u32) -> Option<Lease> {
    let address = IpAddr::V4((0x0a00_0000 + (number + 16) * 256).into());
    let subnet = IpNet::new(address, 24).ok()?;
    let family = LeaseFamily {
        subnet,
        public_address: IpAddr::V4((0xac10_0000 + number + 16).into()),
        backend_data: advertised.backend_data.v4.clone(),
    };
    Some(Lease {
        key: LeaseKey::new([subnet].into())?,
        families: [family].into(),
        backend_type: advertised.backend_type.clone(),
        node_id: None,
        node_name: None,
    })
}

fn steer(instance: &mut PacketInstance, peers: &[Lease]) -> Result<Vec<Measurement>, MeasureError> {
    let subnets = peers.iter().filter_map(|peer| peer.families.first()).map(|part| part.subnet);
    let destinations: Vec<IpAddr> =
        subnets.map(|subnet: IpNet| subnet.addr()).cycle().take(BATCH).collect();
    let mut answers = Vec::new();
    [1, destinations.len()]
        .into_iter()
        .map(|count| {
            let batch = &destinations[..count.min(destinations.len())];
            Measurement::of_packets(format!("steer {count}"), || {
                instance.steer(batch, &mut answers)
            })
        })
        .collect()
}

fn transform(instance: &mut PacketInstance) -> Result<Vec<Measurement>, MeasureError> {
    let length = PACKET as usize;
    let (bytes, lengths) = (vec![0x45; BATCH * length], vec![PACKET; BATCH]);
    [1, BATCH]
        .into_iter()
        .map(|count| {
            Measurement::of_packets(format!("encapsulate {count} of {PACKET} bytes"), || {
                instance.encapsulate(0, &bytes[..count * length], &lengths[..count]).map(drop)
            })
        })
        .collect()
}

async fn emitter(plugin: &Plugin) -> Result<Vec<Measurement>, MeasureError> {
    let scenario = Scenario::ordinary(&[Family::V4], &json!({ "Type": "vxlan" }))?;
    let (key, node) = &scenario.node;
    let advertised = Advertisements { backend_type: None, backend_data: PerFamily::NONE };
    let lease = advertised.lease(*key, node, None);
    let site = Arc::new(scenario.site(node).with_lease(lease));
    let view = View { site, mtu: 1450, ip_masq: true };
    let emitter = plugin.emitter()?;
    Ok(vec![Measurement::of("emit", async || emitter.emit(&view, &[]).await).await?])
}
