//! `heddle plugin inspect`.

use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use heddle_plugin::{Catalogue, Inspection, inspect as look_into};

use super::{Component, Which};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

pub(super) fn inspect(Arguments { which }: &Arguments) -> anyhow::Result<()> {
    let Component { source, bytes } = which.read()?;
    let Inspection { manifest, digest, size, imports } =
        look_into(&bytes).with_context(|| source.to_string())?;
    let catalogue = which.places.catalogue()?;
    let policy = catalogue.policy()?;
    let missing = Catalogue::not_granted(&policy, &manifest, &digest);
    let start = Instant::now();
    if let Err(reason) = heddle_plugin::compile(&bytes) {
        bail!("{source} cannot be compiled: {reason}");
    }
    let compiled = start.elapsed();

    show("name", [&manifest.name]);
    show("version", [&manifest.version]);
    show("WIT", [&manifest.wit]);
    show("world", [format!("{} ({})", manifest.world, manifest.world.summary())]);
    show("source", [&source]);
    show("size", [format!("{size} bytes")]);
    let pinned = match policy.digest(&manifest.name) {
        Some(expected) if expected != digest => format!(" (expected {expected})"),
        Some(_) => " (as the operator wants it)".to_owned(),
        None => String::new(),
    };
    show("sha256", [format!("{digest}{pinned}")]);
    show("compiles", [format!("in {} ms", compiled.as_millis())]);
    show("imports", imports);
    show(
        "asks",
        manifest.capabilities.all().iter().map(|asked| {
            let answer = if missing.contains(asked) { "NOT granted" } else { "granted" };
            format!("{:<32} {answer}", asked.to_string())
        }),
    );
    Ok(())
}

/// Lines of one kind: what they are about, and then each.
fn show<T: ToString>(what: &str, lines: impl IntoIterator<Item = T>) {
    for (number, line) in lines.into_iter().enumerate() {
        println!("{:<8} {}", if number == 0 { what } else { "" }, line.to_string());
    }
}
