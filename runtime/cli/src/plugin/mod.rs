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
    Catalogue, Plugin, Policy, Setting, Source, embedded_component, read_component,
};
use serde_json::{Map, Value};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes a directory with a new plugin in it, which works: a crate to be changed, with its tests.
    New(new::Arguments),
    /// Lists the plugins that the daemon would find.
    List(Places),
    /// Shows what a plugin is, what it asks for and whether it is granted that, without running it.
    Inspect(inspect::Arguments),
    /// Tries a plugin out, without root: whether it is pure, takes whatever it is told, and keeps to its manifest.
    Check(check::Arguments),
    /// Shows what a plugin plans in a situation that a file describes.
    Plan(plan::Arguments),
    /// Describes this host, its network config and the other leases in such a file, for tests of plugins.
    Record(record::Arguments),
    /// Runs a plugin between two hosts on this machine that exist for a few seconds. Needs root.
    Run(run::Arguments),
    /// Measures what a plugin costs: to compile, to load, and each call.
    Bench(bench::Arguments),
    /// Puts a manifest into a component that was made in a language without a Heddle SDK.
    Manifest(manifest::Arguments),
    /// Compiles a component to native code for this machine. The daemon does this by itself when it needs to.
    Compile(compile::Arguments),
    /// Writes the built-in plugins' components into a directory, each as NAME.wasm.
    Export(export::Arguments),
}

/// Plugin directories and policy: the daemon's flags.
#[derive(Args)]
pub(crate) struct Places {
    /// Directory to search for plugins, before those inside the binary. Repeatable; searched in
    /// this order.
    #[arg(long = "plugin-dir", value_name = "DIR", default_values = Catalogue::DEFAULT_DIRS)]
    dirs: Vec<PathBuf>,
    /// Policy for plugins: grants, limits and pinned digests. The default need not exist.
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
    /// A plugin's name, or a `.wasm` file (anything with a `/` or a `.` in it).
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
    source: Source,
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
                bail!("there is no plugin `{name}`: `heddle plugin list` shows those there are");
            };
            match (entry.source, embedded_component(name)) {
                (Source::File(path), _) => path,
                (Source::Embedded, Some(component)) => {
                    return Ok(Component { source: Source::Embedded, bytes: component.to_owned() });
                }
                (Source::Embedded, None) => bail!("the embedded plugin `{name}` is missing"),
            }
        };
        let bytes = read_component(&path)?;
        Ok(Component { source: Source::File(path), bytes })
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
