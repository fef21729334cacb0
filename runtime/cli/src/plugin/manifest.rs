//! `heddle plugin manifest`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use heddle_plugin::{read_component, with_manifest};

use super::compile::replace;
use crate::input::read_file;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Component, a `.wasm` file. It is replaced by one with the manifest.
    component: PathBuf,
    /// Manifest, a file with a JSON object.
    manifest: PathBuf,
}

pub(super) fn manifest(Arguments { component, manifest }: &Arguments) -> anyhow::Result<()> {
    let (bytes, text) = (read_component(component)?, read_file(manifest)?);
    let with = with_manifest(&bytes, &text)
        .with_context(|| format!("{} and {}", component.display(), manifest.display()))?;
    replace(component, &with)
}
