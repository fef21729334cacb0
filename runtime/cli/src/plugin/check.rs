//! `heddle plugin check`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use heddle_conformance::{Report, Settings, Thoroughness, examine};
use heddle_plugin::Setting;

use super::Which;
use crate::daemon::wait_for;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// A backend's keys, as in the network config: {"Type":"…","Port":4000}. Without it there is `Type` alone.
    #[arg(long, value_name = "JSON")]
    backend: Option<String>,
    /// An emitter's setting. Repeatable.
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// How many made-up configs, leases and batches of packets are tried.
    #[arg(long, value_name = "NUMBER", default_value_t = Thoroughness::default().rounds)]
    rounds: u32,
    /// What they are made up from: the same for the same.
    #[arg(long, value_name = "NUMBER", default_value_t = Thoroughness::default().seed)]
    seed: u64,
}

pub(super) fn check(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let plugin = arguments.which.load()?;
    let manifest = plugin.manifest();
    let mut settings = Settings::least(&manifest.name);
    if let Some(json) = &arguments.backend {
        settings.backend = backend(json, &manifest.name)?;
    }
    for given in &arguments.settings {
        let Some((name, value)) = given.split_once('=') else {
            bail!("--setting={given}: expected NAME=VALUE");
        };
        settings.emitter.push(Setting { name: name.to_owned(), value: value.to_owned() });
    }
    let Arguments { rounds, seed, .. } = *arguments;
    println!("{} {}, {} ({})", manifest.name, manifest.version, manifest.world, plugin.source());
    let thoroughness = Thoroughness { rounds, seed };
    let report = wait_for(async { Ok(examine(&plugin, &settings, &thoroughness).await?) })?;
    print(&report);
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The object `Backend`, with the plugin's name in it.
fn backend(json: &str, name: &str) -> anyhow::Result<serde_json::Value> {
    let mut backend: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json)
        .with_context(|| format!("--backend={json}: expected a JSON object"))?;
    let kind = backend.entry("Type").or_insert_with(|| name.into());
    if kind != name {
        bail!(
            "--backend={json}: `Type` is {kind}: expected \"{name}\", the plugin's name, or none"
        );
    }
    Ok(backend.into())
}

/// A line for each rule, and one for each finding.
fn print(report: &Report) {
    for (rule, times, findings) in report.rules() {
        let verdict = if findings.is_empty() { "ok" } else { "FAILED" };
        println!("{verdict:<7} {:<11} {} ({times} times)", rule.to_string(), rule.summary());
        for finding in findings {
            println!("        {}", finding.text);
        }
    }
    for note in report.notes() {
        println!("note    {note}");
    }
}
