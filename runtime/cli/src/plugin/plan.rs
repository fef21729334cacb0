//! `heddle plugin plan`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;
use clap::Args;
use heddle_conformance::{Plans, Scenario};

use super::Which;
use crate::daemon::wait_for;
use crate::output::print;

#[derive(Args)]
pub(crate) struct Arguments {
    /// A backend's name, or a `.wasm` file (anything with a `/` or a `.` in it).
    #[command(flatten)]
    which: Which,
    /// The situation, a JSON file (-: standard input): network config, this node, other nodes, leases.
    scenario: PathBuf,
}

pub(super) fn plan(Arguments { which, scenario: file }: &Arguments) -> anyhow::Result<()> {
    let text = read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let scenario = Scenario::parse(&text).with_context(|| file.display().to_string())?;
    let plugin = which.load()?;
    let plans = wait_for(async {
        let backend = plugin.backend()?;
        Ok(Plans::of(&backend, &scenario).await)
    })?;
    print(&plans.text())
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return fs::read(file);
    }
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    Ok(text)
}
