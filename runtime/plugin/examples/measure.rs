//! Measures the cost of plugins: the time to load and call one, the memory of a process with a
//! backend and an emitter, the time to plan a peer, and the time for a batch of packets.
//!
//! `measure [PEERS [PLUGIN-DIR]]`; with a directory, `heddle-compiler` has to be beside it or in
//! `/usr/libexec/heddle`.

#![expect(clippy::disallowed_macros, reason = "a program for measurements")]
#![expect(clippy::disallowed_methods, reason = "a program of its own, for measurements")]

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use heddle_core::config::{BackendConfig, NetworkConfig, OverlayNetwork};
use heddle_core::lease::{Lease, LeaseFamily};
use heddle_core::node::{Node, Underlay};
use heddle_core::site::Site;
use heddle_plugin::{Catalogue, Role, Setting, View};

const ROUNDS: u32 = 50;
const CALLS: u32 = 1000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let peers = env::args().nth(1).map_or(Ok(10_000), |count| count.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(measure(peers, env::args().nth(2).map(Into::into)))
}

async fn measure(peers: u32, dir: Option<PathBuf>) -> Result<(), Failure> {
    println!("memory before:            {}", resident()?);
    let site = site("vxlan")?;

    let start = Instant::now();
    let catalogue =
        Catalogue::new(dir.into_iter().collect(), None, Catalogue::DEFAULT_CACHE.into())?;
    println!("engine:                   {:?}", start.elapsed());
    let start = Instant::now();
    let plugin = catalogue.find("vxlan", Role::Backend)?;
    println!("vxlan, load:              {:?}", start.elapsed());
    let start = Instant::now();
    let backend = plugin.backend()?;
    let node_plan = backend.plan_node(&site).await?;
    println!("vxlan, start, first call: {:?}", start.elapsed());

    let emitter = catalogue.find("subnet-env", Role::Emitter)?.emitter()?;
    let view = View { site: site.clone(), mtu: node_plan.mtu, ip_masq: true };
    let setting = Setting { name: "path".into(), value: "/tmp/subnet.env".into() };
    emitter.emit(&view, &[setting]).await?;
    println!("memory with both plugins: {}", resident()?);

    for _ in 0..5 {
        let leases = leases(peers, "vxlan")?;
        let start = Instant::now();
        let plans = backend.plan_peers(&site, node_plan.links(), leases).await;
        let time = start.elapsed();
        let planned = plans.iter().filter(|plan| plan.is_ok()).count();
        println!(
            "plans for {planned} of {peers} peers: {time:?}, {} ns each",
            time.as_nanos() / u128::from(peers.max(1))
        );
    }
    println!("memory afterwards:        {}", resident()?);
    steering(&catalogue, peers)?;
    transforming(&catalogue)
}

/// Measures batches through the embedded backend that steers, in rounds of all sizes. Prints the
/// best time of each size, because other programs can only make a call longer.
fn steering(catalogue: &Catalogue, peers: u32) -> Result<(), Failure> {
    let plugin = catalogue.find("udp", Role::Backend)?.packets()?;
    let plugin = plugin.ok_or("udp does not steer")?;
    let (site, leases) = (site("udp")?, leases(peers, "udp")?);
    let start = Instant::now();
    let mut instance = plugin.instance(&site, &leases)?;
    println!("steering, start, update with {peers} peers: {:?}", start.elapsed());
    println!("memory with that:         {}", resident()?);

    let destinations: Vec<IpAddr> = leases
        .iter()
        .flat_map(|lease| &lease.families)
        .map(|part| part.subnet.addr())
        .cycle()
        .take(64)
        .collect();
    let mut answers = Vec::new();
    best("steer", [0, 1, 32, 64], |count| Ok(instance.steer(&destinations[..count], &mut answers)?))
}

/// Measures the same for packets of 1400 bytes through the embedded backend that transforms.
fn transforming(catalogue: &Catalogue) -> Result<(), Failure> {
    let plugin = catalogue.find("vxlan-tun", Role::Backend)?.packets()?;
    let plugin = plugin.ok_or("vxlan-tun does not steer")?;
    let (site, peers) = (site("vxlan-tun")?, leases(1, "vxlan-tun")?);
    let mut instance = plugin.instance(&site, &peers)?;
    let (bytes, lengths) = ([0x45; 64 * 1400], [1400; 64]);
    best("encapsulate", [1, 45, 64], |count| {
        let (sent, _) = instance.encapsulate(0, &bytes[..count * 1400], &lengths[..count])?;
        match sent.len() > count * 1400 {
            true => Ok(()),
            false => Err("packets were dropped".into()),
        }
    })
}

/// Prints the time of a call for each number of packets.
fn best<const N: usize>(
    name: &str,
    sizes: [usize; N],
    mut call: impl FnMut(usize) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut best = sizes.map(|size| (size, Duration::MAX));
    for _ in 0..ROUNDS {
        for (size, best) in &mut best {
            let start = Instant::now();
            for _ in 0..CALLS {
                call(*size)?;
            }
            *best = (*best).min(start.elapsed() / CALLS);
        }
    }
    for (size, time) in best {
        println!("{:<25} {} ns", format!("{name} {size}:"), time.as_nanos());
    }
    Ok(())
}

fn site(kind: &str) -> Result<Arc<Site>, Failure> {
    Ok(Arc::new(Site::new(config()?, node()?).with_lease(lease(8, kind)?)))
}

fn config() -> Result<NetworkConfig, Failure> {
    Ok(NetworkConfig {
        networks: [OverlayNetwork {
            network: "10.0.0.0/8".parse()?,
            subnet_length: 24,
            subnet_min: "10.0.1.0".parse()?,
            subnet_max: "10.255.255.0".parse()?,
        }]
        .into(),
        nftables: false,
        backend: BackendConfig { kind: "vxlan".into(), json: r#"{"Type":"vxlan","VNI":1}"#.into() },
    })
}

fn node() -> Result<Node, Failure> {
    Ok(Node {
        id: "measure".parse()?,
        underlay: Underlay {
            link: "eth0".parse()?,
            mtu: 1500,
            addresses: vec!["172.16.0.8/12".parse()?],
            public_addresses: ["172.16.0.8".parse::<std::net::IpAddr>()?].into(),
        },
        links: vec![],
    })
}

/// Returns the leases of `count` peers.
fn leases(count: u32, kind: &str) -> Result<Vec<Lease>, Failure> {
    (256..256 + count).map(|number| lease(number, kind)).collect()
}

fn lease(number: u32, kind: &str) -> Result<Lease, Failure> {
    let (high, low) = (number >> 8, number & 0xff);
    Ok(Lease {
        key: format!("10.{high}.{low}.0-24").parse()?,
        families: [LeaseFamily {
            subnet: format!("10.{high}.{low}.0/24").parse()?,
            public_address: format!("172.16.{high}.{low}").parse()?,
            backend_data: Some(format!(
                r#"{{"VNI":1,"VtepMAC":"02:00:00:00:{high:02x}:{low:02x}"}}"#
            )),
        }]
        .into(),
        backend_type: Some(kind.to_owned()),
        node_id: None,
        node_name: None,
    })
}

/// Returns the process's resident memory from `/proc`: in total, its own, and mapped from files.
fn resident() -> Result<String, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let [all, own, files] = ["VmRSS:", "RssAnon:", "RssFile:"].map(value);
    Ok(format!("{all} ({own} own, {files} from files)"))
}
