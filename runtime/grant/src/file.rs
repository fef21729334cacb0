//! Input and output of emitters: settings and files.

use std::path::{Path, PathBuf};

/// A setting given to an emitter by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the setting.
    pub name: String,
    /// Value of the setting.
    pub value: String,
}

impl Setting {
    /// Returns true if the setting names this file as an output: its name is `path` or ends with
    /// `-path`.
    pub fn names(&self, file: &Path) -> bool {
        (self.name == "path" || self.name.ends_with("-path")) && Path::new(&self.value) == file
    }
}

/// A file that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path without `..`; within the plugin's [`Capabilities`](crate::Capabilities), or
    /// named by a setting.
    pub path: PathBuf,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// Contents of the file.
    pub contents: Vec<u8>,
}
