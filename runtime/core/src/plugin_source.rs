//! Origin of plugins.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Origin of a plugin.
///
/// Part of the status document: `"built-in"` or `{"path": "…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PluginSource {
    /// A copy that is built into the binary.
    #[default]
    #[serde(rename = "built-in")]
    Embedded,
    /// A file.
    #[serde(rename = "path")]
    File(PathBuf),
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Embedded => f.write_str("embedded"),
        }
    }
}
