//! Embeds the SDK and the templates into the tool, for `heddle plugin new`: all of their files that
//! are under version control.

#![expect(clippy::disallowed_macros, reason = "Cargo reads standard output")]

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Files and directories, relative to the root of the tree.
const PARTS: [&str; 8] = [
    "LICENSE",
    "sdk/Cargo.toml",
    "sdk/src",
    "sdk/testkit/Cargo.toml",
    "sdk/testkit/src",
    "sdk/templates",
    "wit/README.md",
    "wit/v0.1",
];

/// Artifacts that Cargo leaves in a directory.
const LEFT_BY_CARGO: [&str; 2] = ["target", "Cargo.lock"];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for part in PARTS {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
        collect(&root.join(part), &mut files);
    }
    println!("cargo::rerun-if-changed=build.rs");
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root).expect("it was found below the root");
        table += &format!("({:?}, include_str!({:?})),\n", name.display().to_string(), file);
    }
    table += "]";
    let path = Path::new(&variable("OUT_DIR")).join("sources.rs");
    fs::write(&path, table).unwrap_or_else(|error| panic!("{path:?} cannot be written: {error}"));
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
        return;
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !LEFT_BY_CARGO.iter().any(|left| name == *left) {
            collect(&entry.path(), files);
        }
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("Cargo sets {name}: {error}"))
}
