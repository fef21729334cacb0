//! `heddle plugin bench`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use heddle_conformance::{Measurement, measure};
use heddle_plugin::{Catalogue, PluginSource, Role};
use serde::Serialize;

use super::{Component, Which};
use crate::daemon::wait_for;
use crate::output::{json, print, table};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Number of peers to plan for, if the plugin is a backend.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    peers: u32,
    /// Print JSON, for programs; times are in nanoseconds.
    #[arg(long)]
    json: bool,
}

/// Statistics of one kind of call, in nanoseconds.
#[derive(Serialize)]
struct Row {
    call: String,
    least: u64,
    median: u64,
    p99: u64,
    times: usize,
}

impl Row {
    fn of(Measurement { what, mut times }: Measurement) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let time = times[(times.len() - 1) * percent / 100];
            u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
        };
        Self { call: what, least: at(0), median: at(50), p99: at(99), times: times.len() }
    }
}

/// Number of loads measured.
const LOADS: usize = 20;

pub(super) fn bench(arguments: &Arguments) -> anyhow::Result<()> {
    let component = arguments.which.read()?;
    let mut rows = loading(&component)?;
    let plugin = arguments.which.load()?;
    rows.extend(wait_for(async { Ok(measure(&plugin, arguments.peers).await?) })?);
    let rows: Vec<_> = rows.into_iter().map(Row::of).collect();
    if arguments.json {
        return print(&json(&rows)?);
    }
    let shown = |row: &Row| {
        [row.call.clone(), time(row.least), time(row.median), time(row.p99), row.times.to_string()]
    };
    print(&table(["CALL", "LEAST", "MEDIAN", "P99", "TIMES"], rows.iter().map(shown)))
}

/// Measures the time to get the plugin ready: compiled, and loaded from the cache or from the
/// binary.
fn loading(component: &Component) -> anyhow::Result<Vec<Measurement>> {
    let start = Instant::now();
    if let Err(reason) = heddle_plugin::compile(&component.bytes, None) {
        bail!("{} cannot be compiled: {reason}", component.source);
    }
    let compile = Measurement { what: "compile".to_owned(), times: vec![start.elapsed()] };
    let manifest = heddle_plugin::Manifest::read(&component.bytes)?;
    let place = tempfile::tempdir().context("there is no place for a cache")?;
    let (plugins, cache) = (place.path().join("plugins"), place.path().join("cache"));
    let role = manifest.world.role();
    // An embedded plugin is loaded from the binary; any other from its file, after one compilation.
    let (what, dirs) = match component.source {
        PluginSource::Embedded => ("load, embedded", Vec::new()),
        PluginSource::File(_) => {
            fs::DirBuilder::new().mode(0o755).create(&plugins)?;
            write(&plugins.join(format!("{}.wasm", manifest.name)), &component.bytes)?;
            ("load, from the cache", vec![plugins])
        }
    };
    let policy = place.path().join("plugins.toml");
    write(&policy, grant_all(&manifest).as_bytes())?;
    let catalogue = Catalogue::new(dirs, None, cache)?.with_policy(policy);
    let load = |role: Role| catalogue.find(&manifest.name, role).map(drop);
    // The first load fills the cache.
    load(role)?;
    let mut times = Vec::new();
    for _ in 0..LOADS {
        let start = Instant::now();
        load(role)?;
        times.push(start.elapsed());
    }
    Ok(vec![compile, Measurement { what: what.to_owned(), times }])
}

/// Writes a file that only its owner can change, whatever the umask: plugins writable by others are
/// refused.
fn write(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    fs::write(path, contents)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

/// Returns a policy that grants a plugin all that it asks for.
pub(super) fn grant_all(manifest: &heddle_plugin::Manifest) -> String {
    let mut text = format!("[plugin.{}]\n", manifest.name);
    let asked = manifest.capabilities.all();
    let mut keys: Vec<_> = asked.iter().map(|asked| asked.key).collect();
    keys.dedup();
    for key in keys {
        let of_key = asked.iter().filter(|asked| asked.key == key);
        let values: Vec<_> = of_key.map(|asked| format!("{:?}", asked.value)).collect();
        text += &format!("{key} = [{}]\n", values.join(", "));
    }
    text
}

/// Formats nanoseconds with about three significant digits.
fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        nanos @ ..10_000 => format!("{nanos} ns"),
        nanos @ ..10_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        nanos => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}
