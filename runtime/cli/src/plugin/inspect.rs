//! `heddle plugin inspect`.

use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use heddle_plugin::{Catalogue, Inspection, inspect as look_into};

use super::{Component, Which};
use crate::output::print;

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
    if let Err(reason) = heddle_plugin::compile(&bytes, None) {
        bail!("{source} cannot be compiled: {reason}");
    }
    let compiled = start.elapsed();

    let mut text = String::new();
    text += &lines("name", [&manifest.name]);
    text += &lines("version", [&manifest.version]);
    text += &lines("WIT", [&manifest.wit]);
    text += &lines("world", [format!("{} ({})", manifest.world, manifest.world.summary())]);
    let keys = |keys: &Vec<String>| if keys.is_empty() { "none".into() } else { keys.join(", ") };
    text += &lines("keys", manifest.keys.iter().map(keys));
    text += &lines("source", [&source]);
    text += &lines("size", [format!("{size} bytes")]);
    let pinned = match policy.digest(&manifest.name) {
        Some(expected) if expected != digest => format!(" (expected {expected})"),
        Some(_) => " (as pinned)".to_owned(),
        None => String::new(),
    };
    text += &lines("sha256", [format!("{digest}{pinned}")]);
    text += &lines("compiles", [format!("in {} ms", compiled.as_millis())]);
    text += &lines("imports", imports);
    text += &lines(
        "asks",
        manifest.capabilities.all().iter().map(|asked| {
            let answer = if missing.contains(asked) { "NOT granted" } else { "granted" };
            format!("{:<32} {answer}", asked.to_string())
        }),
    );
    print(&text)
}

/// Formats lines with a common label in front of the first.
fn lines<T: ToString>(what: &str, lines: impl IntoIterator<Item = T>) -> String {
    let first = std::iter::once(what).chain(std::iter::repeat(""));
    let lines = lines.into_iter().zip(first);
    lines.map(|(line, what)| format!("{what:<8} {}\n", line.to_string())).collect()
}
