//! `heddle plugin compile`: the work is `heddle-compiler`'s.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The component, a `.wasm` file.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Where the native code goes.
    #[arg(value_name = "OUT")]
    output: PathBuf,
}

pub(super) fn compile(Arguments { input, output }: &Arguments) -> anyhow::Result<()> {
    match heddle_plugin::compile(&read_component(input)?, None) {
        Ok(native) => replace(output, &native),
        Err(reason) => bail!("{} cannot be compiled: {reason}", input.display()),
    }
}

/// Reads a component from a file that was named on the command line.
pub(super) fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    heddle_plugin::read_component(path)
        .map_err(|error| anyhow!("{} cannot be read: {}", path.display(), error.reason))
}

/// Puts a file in the place of what is there, in one step.
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
