//! `heddle plugin export`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use heddle_plugin::{Catalogue, embedded_component};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Output directory, created if it is missing. The daemon prefers the files to its built-in plugins if it searches
    /// this directory.
    dir: PathBuf,
}

pub(super) fn export(Arguments { dir }: &Arguments) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    let built_in = Catalogue::new(Vec::new(), None, Catalogue::DEFAULT_CACHE.into())?;
    for entry in built_in.list() {
        let name = entry.name;
        let component = embedded_component(&name)
            .with_context(|| format!("the embedded plugin `{name}` is missing"))?;
        let path = dir.join(format!("{name}.wasm"));
        fs::write(&path, component)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
