//! The search for plugins: in the plugin directories, then among those embedded in the binary.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use heddle_core::plugin_source::PluginSource;
use heddle_files::{RegularFile, TrustError, Untrusted, vouch};
use heddle_grant::{Manifest, check_name};

use super::MAX_COMPONENT;
use crate::embedded::{EMBEDDED, Embedded};
use crate::plugin_error::PluginError;

/// A plugin as [`Catalogue::list`](super::Catalogue::list) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The plugin's name.
    pub name: String,
    /// The plugin's location.
    pub source: PluginSource,
    /// The plugin's manifest, or the reason why the plugin cannot be used.
    pub manifest: Result<Manifest, String>,
    /// True if another plugin of that name takes precedence.
    pub shadowed: bool,
}

/// A plugin that was found but not loaded yet.
pub(super) enum Found {
    File(RegularFile),
    Embedded(&'static Embedded),
}

/// Finds a plugin: the first file of that name in the directories, or the embedded plugin.
pub(super) fn find(dirs: &[PathBuf], name: &str) -> Result<Found, PluginError> {
    check_name(name)?;
    let mut searched = Vec::new();
    for dir in dirs {
        // A directory without the plugin is checked as well: whoever can modify it could have
        // removed the operator's file.
        check_directory(dir)?;
        let path = dir.join(format!("{name}.wasm"));
        match RegularFile::open(&path) {
            Ok(file) => return Ok(Found::File(file)),
            Err(error) if error.is_not_found() => searched.push(path),
            Err(error) => return Err(error.into()),
        }
    }
    match EMBEDDED.iter().find(|embedded| embedded.name == name) {
        Some(embedded) => Ok(Found::Embedded(embedded)),
        None => Err(PluginError::NotFound {
            name: name.to_owned(),
            searched,
            embedded: EMBEDDED.iter().map(|embedded| embedded.name).collect(),
        }),
    }
}

/// Returns all plugins, sorted by name; of those with one name, the one that [`find`] finds comes
/// first.
pub(super) fn list(dirs: &[PathBuf]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for dir in dirs {
        let Ok(files) = fs::read_dir(dir) else { continue };
        let untrusted = check_directory(dir).err();
        for file in files.flatten() {
            let path = file.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            if path.extension().is_none_or(|end| end != "wasm") || check_name(name).is_err() {
                continue;
            }
            let manifest = match &untrusted {
                Some(error) => Err(error.to_string()),
                None => listed_manifest(&path),
            };
            entries.push((name.to_owned(), PluginSource::File(path), manifest));
        }
    }
    for embedded in EMBEDDED {
        let manifest = Manifest::parse(embedded.manifest.as_bytes());
        let manifest = manifest.map_err(|error| error.to_string());
        entries.push((embedded.name.to_owned(), PluginSource::Embedded, manifest));
    }
    // The sort is stable, so entries of one name stay in the order of the search.
    entries.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut listed: Vec<Entry> = Vec::with_capacity(entries.len());
    for (name, source, manifest) in entries {
        let shadowed = listed.last().is_some_and(|before| before.name == name);
        listed.push(Entry { name, source, manifest, shadowed });
    }
    listed
}

/// Checks that only root and this process's user can modify a plugin directory. A missing directory
/// passes.
fn check_directory(dir: &Path) -> Result<(), PluginError> {
    match vouch(dir) {
        Err(TrustError { untrusted: Untrusted::Io(error), .. })
            if error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        checked => checked.map_err(|error| PluginError::Directory { dir: dir.to_owned(), error }),
    }
}

/// Returns the manifest of a file in a trusted directory, or the reason why [`find`]'s caller
/// would reject the file.
fn listed_manifest(path: &Path) -> Result<Manifest, String> {
    let file = RegularFile::open(path).map_err(|error| error.to_string())?;
    file.vouch().map_err(|error| error.to_string())?;
    let component = file.read(MAX_COMPONENT).map_err(|error| error.to_string())?;
    Manifest::read(&component).map_err(|error| error.to_string())
}
