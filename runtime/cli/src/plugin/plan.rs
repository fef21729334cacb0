//! `heddle plugin plan`: shows a backend's plan, or an emitter's files.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use heddle_conformance::{Files, Plans, Scenario};
use heddle_plugin::{Role, Setting};

use super::{Which, setting};
use crate::daemon::wait_for;
use crate::input;
use crate::output::print;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Scenario, a JSON file with network config, node and leases, or `-` for standard input.
    scenario: PathBuf,
    /// Setting of an emitter; repeatable.
    #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<Setting>,
}

pub(super) fn plan(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { which, scenario: file, settings } = arguments;
    let text = input::read(file)?;
    let scenario = Scenario::parse(&text).with_context(|| input::name(file).into_owned())?;
    let plugin = which.load()?;
    let answer = wait_for(async {
        Ok(match plugin.manifest().world.role() {
            Role::Backend => Plans::of(&plugin.backend()?, &scenario).await.text(),
            Role::Emitter => Files::of(&plugin.emitter()?, &scenario, settings).await.text(),
        })
    })?;
    print(&answer)
}
