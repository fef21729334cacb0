//! `heddle plugin new`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use heddle_plugin::check_name;

use crate::output::print;

/// The SDK, the interface and the templates: paths relative to the root of the tree, and contents.
const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// Directory of the templates in the tree.
const TEMPLATES: &str = "sdk/templates/";

/// Names of the plugin and its library in the templates.
const PLACEHOLDERS: [&str; 2] = ["my-plugin", "my_plugin"];

/// Root of the tree, relative to a template.
const SDK: &str = "../..";

/// Lints in the manifests of the SDK.
const LINTS: &str = "\n[lints]\nworkspace = true\n";

/// Destination of the SDK in a new directory.
const VENDOR: &str = "vendor/heddle";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Name of the plugin and its directory: 1 to 32 characters of a–z, 0–9 and `-`, a letter first.
    name: String,
    /// Kind of plugin.
    #[arg(long, value_enum, default_value_t = Kind::Backend)]
    kind: Kind,
    /// Depend on the SDK in this checkout of Heddle instead of a copy.
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// A backend that plans kernel objects; the kernel carries the packets.
    Backend,
    /// A backend that chooses a peer for each packet; heddled carries the packets.
    Packet,
    /// An emitter, which writes files for other programs.
    Emitter,
}

impl Kind {
    /// Returns the template's directory.
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
        bail!("{name} already exists; choose another name");
    }
    write(dir, name, *kind, sdk.as_deref()).with_context(|| format!("{name} cannot be written"))?;
    print(&format!("Edit {name}/src/lib.rs; {name}/README.md has the commands.\n"))
}

/// Writes the complete directory or nothing.
fn write(dir: &Path, name: &str, kind: Kind, sdk: Option<&Path>) -> io::Result<()> {
    // The scratch directory is in the target's parent, and so on the same file system, which makes
    // the rename atomic.
    let scratch = tempfile::Builder::new().prefix(".heddle-new-").tempdir_in(".")?;
    let made = scratch.path().join(name);
    let template = format!("{TEMPLATES}{}/", kind.template());
    for (path, text) in SOURCES {
        if let Some(file) = path.strip_prefix(&template) {
            put(&made.join(file), &fill_in(text, name, sdk))?;
        } else if sdk.is_none() && !path.starts_with(TEMPLATES) {
            put(&made.join(VENDOR).join(path), &vendored(path, text))?;
        }
    }
    fs::rename(&made, dir)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, text)
}

/// Returns a file of the SDK as it is in a plugin's directory: a manifest without the lints of
/// Heddle's workspace, which is not there.
fn vendored<'a>(path: &str, text: &'a str) -> Cow<'a, str> {
    if path.ends_with("/Cargo.toml") {
        Cow::Owned(text.replace(LINTS, ""))
    } else {
        Cow::Borrowed(text)
    }
}

/// Fills in a template for this plugin.
fn fill_in(text: &str, name: &str, sdk: Option<&Path>) -> String {
    let [own, library] = PLACEHOLDERS;
    let text = text.replace(own, name).replace(library, &name.replace('-', "_"));
    let vendored = Path::new(VENDOR).join("sdk");
    let sdk = sdk.unwrap_or(&vendored).display().to_string();
    text.replace(&format!("path = \"{SDK}"), &format!("path = \"{sdk}"))
}

/// Returns the absolute path of the SDK in a checkout.
fn checkout(dir: &Path) -> anyhow::Result<PathBuf> {
    let sdk = dir.join("sdk");
    if !sdk.join("Cargo.toml").is_file() {
        bail!(
            "--sdk={}: there is no sdk/Cargo.toml in it: expected the root of a checkout of Heddle",
            dir.display()
        );
    }
    let sdk = fs::canonicalize(&sdk).with_context(|| format!("--sdk={}", dir.display()))?;
    // The path is written into Cargo.toml.
    match sdk.to_str() {
        Some(path) if !path.contains(['"', '\\']) && !path.contains(char::is_control) => Ok(sdk),
        _ => bail!("--sdk={}: its path cannot stand in Cargo.toml", dir.display()),
    }
}

/// Checks that the name is valid for a plugin and for a crate.
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

/// Strict and reserved keywords of The Rust Reference, "Keywords". Two that are not lower case
/// cannot name a plugin anyway.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Crates that a new plugin depends on, directly or as part of Rust.
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
    fn name_must_be_valid_for_plugin_and_crate() {
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
    fn filled_in_template_has_no_placeholder() {
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
    fn copied_sdk_inherits_nothing_from_a_workspace() {
        for manifest in ["sdk/Cargo.toml", "sdk/testkit/Cargo.toml"] {
            let (path, text) = SOURCES.iter().find(|(path, _)| *path == manifest).unwrap();
            assert!(text.contains(LINTS), "{manifest}");
            let copy = vendored(path, text);
            assert!(!copy.contains("workspace") && !copy.contains("[lints"), "{copy}");
            assert!(text.starts_with(&*copy), "{copy}");
        }
    }

    #[test]
    fn invalid_checkout_is_reported() {
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
