//! `make reference`.

#![forbid(unsafe_code)]

use anyhow::Context;
use heddle_reference::{document, markdown, wit};

fn main() -> anyhow::Result<()> {
    let path = document();
    std::fs::write(&path, markdown(&wit())?).with_context(|| path.display().to_string())
}
