//! Errors of finding and loading a plugin.

use std::path::PathBuf;

use heddle_core::text::list;
use heddle_files::{ReadError, TrustError};
use heddle_grant::{Capability, InvalidName, ManifestError, PolicyError};

use crate::cache::CacheError;
use crate::compiler::CompileError;

/// The reason why a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// No plugin has this name.
    #[error(
        "there is no plugin `{name}`: looked for {}; inside the binary are {}",
        list(.searched.iter().map(|path| path.display())),
        list(.embedded)
    )]
    NotFound {
        /// The name.
        name: String,
        /// The files that were looked for.
        searched: Vec<PathBuf>,
        /// The names of the embedded plugins.
        embedded: Vec<&'static str>,
    },
    /// A file exists but cannot be read.
    #[error("plugin {} cannot be read: {}", .0.path.display(), .0.reason)]
    Read(#[from] ReadError),
    /// A plugin directory can be modified by other users, who could then decide what the daemon
    /// runs.
    #[error("plugin directory {} is not used: {error}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The reason why it is not trusted, and the remedy.
        error: TrustError,
    },
    /// A file may have been written by another user.
    #[error("plugin {} is not used: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason why it is not trusted, and the remedy.
        error: TrustError,
    },
    /// The file is not a plugin, or not one for this host or this role.
    #[error("plugin {plugin} {error}")]
    Manifest {
        /// The plugin's name and location.
        plugin: String,
        /// The problem with the manifest.
        error: ManifestError,
    },
    /// The policy file cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The component's digest differs from the one that the policy file pins.
    #[error(
        "plugin {plugin} has the SHA-256 {found}: expected {expected}, as pinned in {}", .policy.display()
    )]
    Digest {
        /// The plugin's name and location.
        plugin: String,
        /// The component's SHA-256, in hexadecimal.
        found: String,
        /// The pinned SHA-256.
        expected: String,
        /// The policy file.
        policy: PathBuf,
    },
    /// The plugin requests capabilities that the policy file does not grant.
    #[error(
        "plugin {plugin} asks for capabilities that are not granted: {}; grant them in {}, section `plugin.{name}`",
        list(.missing), .policy.display()
    )]
    NotGranted {
        /// The plugin's name.
        name: String,
        /// The plugin's name and location.
        plugin: String,
        /// The requested capabilities that are not granted.
        missing: Vec<Capability>,
        /// The policy file, which could grant them.
        policy: PathBuf,
    },
    /// The cache directory cannot be used.
    #[error("cache directory {} {error}", .dir.display())]
    Cache {
        /// The directory.
        dir: PathBuf,
        /// The problem with it.
        error: CacheError,
    },
    /// The component cannot be compiled.
    #[error("plugin {plugin} cannot be compiled: {error}")]
    Compile {
        /// The plugin's name and location.
        plugin: String,
        /// The compiler's error.
        error: CompileError,
    },
    /// The component imports something that the host does not provide, or lacks an export of its
    /// world.
    #[error("plugin {plugin} cannot be loaded: {reason}")]
    Load {
        /// The plugin's name and location.
        plugin: String,
        /// wasmtime's error message.
        reason: String,
    },
    /// The engine, or the thread of a plugin, cannot be started.
    #[error("cannot run plugins: {0}")]
    Engine(String),
}
