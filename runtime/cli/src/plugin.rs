//! `heddle plugin …`: commands about plugins, for operators and authors.

mod bench;
mod check;
mod compile;
mod export;
mod inspect;
mod list;
mod manifest;
mod new;
mod plan;
mod record;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use heddle_plugin::{
    Catalogue, Plugin, PluginSource, Policy, Setting, embedded_component, read_component,
};
use serde_json::{Map, Value};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Creates a crate with a working plugin and its tests, to be adapted.
    New(new::Arguments),
    /// Lists the plugins that the daemon would find.
    List(Places),
    /// Shows a plugin's manifest and which of its capabilities are granted, without running it.
    Inspect(inspect::Arguments),
    /// Tests that a plugin is pure, accepts every input and keeps to its manifest; exits with 1 if not. Needs no root.
    Check(check::Arguments),
    /// Shows a backend's plans, or an emitter's files, for the scenario in a file.
    Plan(plan::Arguments),
    /// Prints a scenario with this host, its network config and the other leases, for tests of plugins.
    Record(record::Arguments),
    /// Runs a plugin between two short-lived hosts on this machine. Needs root.
    Run(run::Arguments),
    /// Measures the time to compile, load and call a plugin.
    Bench(bench::Arguments),
    /// Adds a manifest to a component that was built without Heddle's SDK.
    Manifest(manifest::Arguments),
    /// Compiles a component to native code for this machine. The daemon does this by itself when needed.
    Compile(compile::Arguments),
    /// Writes the components of the built-in plugins to a directory, each as NAME.wasm.
    Export(export::Arguments),
}

/// Plugin directories and policy: the daemon's flags.
#[derive(Args)]
pub(crate) struct Places {
    /// Directory of plugins, searched before the built-in ones; repeatable, searched in this order.
    #[arg(long = "plugin-dir", value_name = "DIR", default_values = Catalogue::DEFAULT_DIRS)]
    dirs: Vec<PathBuf>,
    /// Plugin policy: grants, limits and pinned digests; the default file need not exist.
    #[arg(long = "plugin-policy", value_name = "FILE", default_value = Policy::DEFAULT_FILE)]
    policy: PathBuf,
}

impl Places {
    /// Returns places without plugins other than those inside the binary.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { dirs: Vec::new(), policy: Policy::DEFAULT_FILE.into() }
    }

    pub(crate) fn catalogue(&self) -> anyhow::Result<Catalogue> {
        let catalogue = Catalogue::new(self.dirs.clone(), None, Catalogue::DEFAULT_CACHE.into())?;
        Ok(catalogue.with_policy(self.policy.clone()))
    }
}

/// The plugin to work with.
#[derive(Args)]
struct Which {
    /// Name of a plugin, or a `.wasm` file (with a `/` or `.` in its path).
    #[arg(value_name = "FILE|NAME")]
    plugin: String,
    #[command(flatten)]
    places: Places,
}

/// Parses an emitter's setting.
fn setting(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok(Setting { name: name.to_owned(), value: value.to_owned() })
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Returns the given object `Backend`, with the plugin's name filled in.
fn backend(json: Option<&str>, name: &str) -> anyhow::Result<Value> {
    let json = json.unwrap_or("{}");
    let mut backend: Map<String, Value> = serde_json::from_str(json)
        .with_context(|| format!("--backend={json}: expected a JSON object"))?;
    let kind = backend.entry("Type").or_insert_with(|| name.into());
    if kind != name {
        bail!(
            "--backend={json}: `Type` is {kind}: expected \"{name}\", the plugin's name, or none"
        );
    }
    Ok(backend.into())
}

/// A component's bytes and origin.
struct Component {
    source: PluginSource,
    bytes: Vec<u8>,
}

impl Which {
    /// Reads the component.
    fn read(&self) -> anyhow::Result<Component> {
        let name = &self.plugin;
        let path = if name.contains(['/', '.']) {
            PathBuf::from(name)
        } else {
            let entries = self.places.catalogue()?.list();
            let Some(entry) = entries.into_iter().find(|entry| entry.name == *name) else {
                bail!("there is no plugin `{name}`; `heddle plugin list` shows all plugins");
            };
            match (entry.source, embedded_component(name)) {
                (PluginSource::File(path), _) => path,
                (PluginSource::Embedded, Some(component)) => {
                    return Ok(Component {
                        source: PluginSource::Embedded,
                        bytes: component.to_owned(),
                    });
                }
                (PluginSource::Embedded, None) => bail!("the embedded plugin `{name}` is missing"),
            }
        };
        let bytes = read_component(&path)?;
        Ok(Component { source: PluginSource::File(path), bytes })
    }

    /// Compiles the plugin and prepares it to be started, with the limits that it would have in the
    /// daemon.
    fn load(&self) -> anyhow::Result<Plugin> {
        let Component { source, bytes } = self.read()?;
        Ok(self.places.catalogue()?.open_component(source, &bytes)?)
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(arguments) => new::new(&arguments),
        Command::List(places) => list::list(&places),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Check(arguments) => return check::check(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments),
        Command::Record(arguments) => record::record(arguments),
        Command::Run(arguments) => return run::run(arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Manifest(arguments) => manifest::manifest(&arguments),
        Command::Compile(arguments) => compile::compile(&arguments),
        Command::Export(arguments) => export::export(&arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}
