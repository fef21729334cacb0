//! `heddle plugin check`.

use std::process::ExitCode;

use clap::Args;
use heddle_conformance::{Report, Settings, Thoroughness, examine};
use heddle_plugin::{Manifest, Setting};

use super::{Which, backend, setting};
use crate::daemon::wait_for;
use crate::output::print;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Keys of a backend, as in the network config: {"Port":4000} [default: `Type` alone].
    #[arg(long, value_name = "JSON")]
    backend: Option<String>,
    /// Setting of an emitter; repeatable.
    #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<Setting>,
    /// Number of generated configs, leases and packet batches.
    #[arg(long, value_name = "NUMBER", default_value_t = Thoroughness::default().rounds)]
    rounds: u32,
    /// Seed of the generator; the same seed generates the same inputs.
    #[arg(long, value_name = "NUMBER", default_value_t = Thoroughness::default().seed)]
    seed: u64,
}

pub(super) fn check(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let plugin = arguments.which.load()?;
    let manifest = plugin.manifest();
    let settings = Settings {
        backend: backend(arguments.backend.as_deref(), &manifest.name)?,
        emitter: arguments.settings.clone(),
    };
    let Arguments { rounds, seed, .. } = *arguments;
    let Manifest { name, version, world, .. } = manifest;
    print(&format!("{name} {version}, {world} ({})\n", plugin.source()))?;
    let thoroughness = Thoroughness { rounds, seed };
    let report = wait_for(async { Ok(examine(&plugin, &settings, &thoroughness).await?) })?;
    print(&render(&report))?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Formats one line for each rule, and one for each finding.
fn render(report: &Report) -> String {
    let mut text = String::new();
    for (rule, times, findings) in report.rules() {
        let verdict = if findings.is_empty() { "ok" } else { "FAILED" };
        let name = rule.to_string();
        text += &format!("{verdict:<7} {name:<11} {} ({times} times)\n", rule.summary());
        for finding in findings {
            text += &format!("        {}\n", finding.text);
        }
    }
    for note in report.notes() {
        text += &format!("note    {note}\n");
    }
    text
}
