//! `heddle plugin new`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use heddle_plugin::check_name;

/// The SDK, the interface and the templates: paths below the root of the tree, and what is in the files.
const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// Where the templates are in the tree.
const TEMPLATES: &str = "sdk/templates/";

/// What the plugin is called in the templates, and its library.
const PLACEHOLDERS: [&str; 2] = ["my-plugin", "my_plugin"];

/// Where the SDK is, seen from a template.
const SDK: &str = "../..";

/// Where it goes in a new directory.
const VENDOR: &str = "vendor/heddle";

#[derive(Args)]
pub(crate) struct Arguments {
    /// The plugin's name, and that of the directory: 1 to 32 of a–z, 0–9 and `-`, a letter first.
    name: String,
    /// What it is.
    #[arg(long, value_enum, default_value_t = Kind::Backend)]
    kind: Kind,
    /// Depend on the SDK in this checkout of Heddle, in place of a copy.
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// A backend: how nodes reach each other. The kernel carries the packets.
    Backend,
    /// A backend that says where packets go; heddled carries them.
    Packet,
    /// An emitter: files for other programs.
    Emitter,
}

impl Kind {
    /// The template's directory.
    fn template(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Packet => "packet",
            Self::Emitter => "emitter",
        }
    }
}

pub(super) fn new(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { name, kind, sdk } = arguments;
    check(name)?;
    let sdk = sdk.as_deref().map(checkout).transpose()?;
    let dir = Path::new(name);
    if dir.symlink_metadata().is_ok() {
        bail!("{name} is there already: expected a name that nothing here has");
    }
    write(dir, name, *kind, sdk.as_deref()).with_context(|| format!("{name} cannot be written"))?;
    println!("{name}/src/lib.rs is the file to change; {name}/README.md has the commands.");
    Ok(())
}

/// Writes all of it or nothing.
fn write(dir: &Path, name: &str, kind: Kind, sdk: Option<&Path>) -> io::Result<()> {
    // Beside the place where it goes, and so on the same file system.
    let scratch = tempfile::Builder::new().prefix(".heddle-new-").tempdir_in(".")?;
    let made = scratch.path().join(name);
    let template = format!("{TEMPLATES}{}/", kind.template());
    for (path, text) in SOURCES {
        if let Some(file) = path.strip_prefix(&template) {
            put(&made.join(file), &fill_in(text, name, sdk))?;
        } else if sdk.is_none() && !path.starts_with(TEMPLATES) {
            put(&made.join(VENDOR).join(path), text)?;
        }
    }
    fs::rename(&made, dir)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, text)
}

/// A template's text for this plugin.
fn fill_in(text: &str, name: &str, sdk: Option<&Path>) -> String {
    let [own, library] = PLACEHOLDERS;
    let text = text.replace(own, name).replace(library, &name.replace('-', "_"));
    let vendored = Path::new(VENDOR).join("sdk");
    let sdk = sdk.unwrap_or(&vendored).display().to_string();
    text.replace(&format!("path = \"{SDK}"), &format!("path = \"{sdk}"))
}

/// The SDK in a checkout, by its absolute path.
fn checkout(dir: &Path) -> anyhow::Result<PathBuf> {
    let sdk = dir.join("sdk");
    if !sdk.join("Cargo.toml").is_file() {
        bail!(
            "--sdk={}: there is no sdk/Cargo.toml in it: expected the root of a checkout of Heddle",
            dir.display()
        );
    }
    let sdk = fs::canonicalize(&sdk).with_context(|| format!("--sdk={}", dir.display()))?;
    // It is to stand in Cargo.toml.
    match sdk.to_str() {
        Some(path) if !path.contains(['"', '\\']) && !path.contains(char::is_control) => Ok(sdk),
        _ => bail!("--sdk={}: its path cannot stand in Cargo.toml", dir.display()),
    }
}

/// Whether it can name a plugin, and a crate as well.
fn check(name: &str) -> anyhow::Result<()> {
    check_name(name)?;
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        bail!("`{name}` cannot name a crate: expected a letter first");
    }
    if KEYWORDS.contains(&name) {
        bail!(
            "`{name}` cannot name a crate, because it is a keyword of Rust: expected another name"
        );
    }
    if TAKEN.contains(&name) {
        bail!(
            "`{name}` cannot name this crate, because it needs another of that name: expected another name"
        );
    }
    Ok(())
}

/// The Rust Reference, "Keywords": strict and reserved ones. Two that are not lower case cannot name a plugin anyway.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Crates that a new one depends on, by itself or because it is Rust.
const TAKEN: [&str; 9] = [
    "alloc",
    "core",
    "expect-test",
    "heddle-sdk",
    "heddle-testkit",
    "proc-macro",
    "serde",
    "std",
    "test",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plugin_s_and_a_crate_s() {
        for good in ["racks", "host-gw2", "a", "x-"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for (bad, expected) in [
            ("", "expected 1 to 32"),
            ("Racks", "expected 1 to 32"),
            ("my_racks", "expected 1 to 32"),
            ("../racks", "expected 1 to 32"),
            (&"a".repeat(33), "expected 1 to 32"),
            ("2racks", "expected a letter first"),
            ("-racks", "expected a letter first"),
            ("match", "keyword of Rust"),
            ("test", "needs another of that name"),
            ("serde", "needs another of that name"),
        ] {
            let error = check(bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn no_template_says_where_it_was() {
        for kind in [Kind::Backend, Kind::Packet, Kind::Emitter] {
            let template = format!("{TEMPLATES}{}/", kind.template());
            let files: Vec<_> = SOURCES
                .iter()
                .filter_map(|(path, text)| Some((path.strip_prefix(&template)?, text)))
                .collect();
            for name in
                ["Cargo.toml", "README.md", "src/lib.rs", ".gitignore", ".github/workflows/ci.yml"]
            {
                assert!(files.iter().any(|(file, _)| *file == name), "{template}{name}");
            }
            for (file, text) in files {
                let filled = fill_in(text, "racks", None);
                for left in [PLACEHOLDERS[0], PLACEHOLDERS[1], SDK] {
                    assert!(!filled.contains(left), "{template}{file}: {left}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_a_checkout_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = checkout(dir.path()).unwrap_err().to_string();
        assert!(error.contains("there is no sdk/Cargo.toml in it"), "{error}");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let sdk = checkout(&root).unwrap();
        assert_eq!(sdk, root.canonicalize().unwrap().join("sdk"));
        let manifest =
            fill_in("heddle-testkit = { path = \"../../testkit\" }", "racks", Some(&sdk));
        assert_eq!(
            manifest,
            format!("heddle-testkit = {{ path = \"{}/testkit\" }}", sdk.display())
        );
    }
}
