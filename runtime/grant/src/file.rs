//! What an emitter is asked for and answers.

use std::path::{Path, PathBuf};

/// An option given by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Setting {
    /// Whether it says that a file goes there: a setting `path`, or one whose name ends with `-path`.
    pub fn names(&self, file: &Path) -> bool {
        (self.name == "path" || self.name.ends_with("-path")) && Path::new(&self.value) == file
    }
}

/// A file that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute, without `..`; among the plugin's [`Capabilities`](crate::Capabilities), or named by a setting.
    pub path: PathBuf,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// What stands in it.
    pub contents: Vec<u8>,
}
