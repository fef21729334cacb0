//! `heddle plugin compile`: has `heddle-compiler` compile a component.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use heddle_plugin::read_component;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Component, a `.wasm` file.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Output file for the native code.
    #[arg(value_name = "OUT")]
    output: PathBuf,
}

pub(super) fn compile(Arguments { input, output }: &Arguments) -> anyhow::Result<()> {
    match heddle_plugin::compile(&read_component(input)?, None) {
        Ok(native) => replace(output, &native),
        Err(reason) => bail!("{} cannot be compiled: {reason}", input.display()),
    }
}

/// Replaces a file atomically.
pub(super) fn replace(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
        file.write_all(contents)?;
        file.persist(path)?;
        Ok(())
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}
