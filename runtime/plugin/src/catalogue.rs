//! The plugin catalogue: finds plugins in files and in the binary, checks them and loads them.

mod admission;
mod search;

use std::path::{Path, PathBuf};

use heddle_core::plugin_source::PluginSource;
use heddle_files::{ReadError, RegularFile};
use heddle_grant::text::plain;
use heddle_grant::{Capability, Manifest, Policy, PolicyError, Role, check_name, manifest_text};
use wasmtime::component::Component;

use crate::cache::{Cache, Known, Stamp};
use crate::compiler;
use crate::engine::{Runtime, TrustedCode};
use crate::plugin::{Admitted, Plugin};
use crate::plugin_error::PluginError;

pub use search::Entry;

use admission::Wanted;
use search::Found;

/// Size limit of a component in bytes. Components written in Rust have a tenth of a MiB, those that
/// include a language's whole runtime about ten MiB.
const MAX_COMPONENT: u64 = 64 << 20;

/// Finds and loads plugins.
///
/// A file `<name>.wasm` in a plugin directory takes precedence over the embedded plugin of that
/// name, and an earlier directory over a later one.
pub struct Catalogue {
    runtime: Runtime,
    dirs: Vec<PathBuf>,
    compiler: Option<PathBuf>,
    cache: PathBuf,
    policy: PathBuf,
}

impl Catalogue {
    /// The default plugin directories, in order.
    pub const DEFAULT_DIRS: [&str; 2] = ["/etc/heddle/plugins", "/usr/lib/heddle/plugins"];

    /// The default cache directory.
    pub const DEFAULT_CACHE: &str = "/var/cache/heddle";

    /// Returns a catalogue of these plugin directories. `compiler` is a `heddle-compiler` that the
    /// caller vouches for, as tests do; None means the one beside this executable or in
    /// `/usr/libexec/heddle`, which is checked. The cache is not touched before a plugin is found
    /// in a file, nor the compiler before a plugin has to be compiled.
    ///
    /// # Errors
    ///
    /// [`PluginError::Engine`], when the engine cannot be started.
    pub fn new(
        dirs: Vec<PathBuf>,
        compiler: Option<PathBuf>,
        cache: PathBuf,
    ) -> Result<Self, PluginError> {
        let runtime = Runtime::new().map_err(PluginError::Engine)?;
        let policy = PathBuf::from(Policy::DEFAULT_FILE);
        Ok(Self { runtime, dirs, compiler, cache, policy })
    }

    /// Returns the same catalogue with another policy file than [`Policy::DEFAULT_FILE`]. The file
    /// is read whenever a plugin is looked for.
    pub fn with_policy(self, file: PathBuf) -> Self {
        Self { policy: file, ..self }
    }

    /// Finds a plugin and loads it. Blocks during compilation if the file was never seen before.
    ///
    /// # Errors
    ///
    /// The name is invalid, or no plugin has it. The file is not a plugin for this host or this
    /// role, does not match the pinned digest, requests capabilities that are not granted, or
    /// cannot be compiled or loaded. Users other than root and this process's user could modify the
    /// directory, the file or the policy file. In none of these cases does the catalogue fall back
    /// to the embedded plugin.
    pub fn find(&self, name: &str, role: Role) -> Result<Plugin, PluginError> {
        let found = search::find(&self.dirs, name)?;
        let policy = Policy::read_trusted(&self.policy)?;
        let wanted = Wanted { name, role, policy: &policy, file: &self.policy };
        match found {
            Found::File(file) => self.find_file(&wanted, &file),
            Found::Embedded(embedded) => {
                let manifest = Manifest::parse(embedded.manifest.as_bytes());
                let digest = embedded.digest.to_owned();
                let admitted = wanted.admit(PluginSource::Embedded, digest, manifest)?;
                let component = self.runtime.load(embedded.native());
                let component = component.map_err(|reason| admitted.does_not_load(reason))?;
                self.link(admitted, &component)
            }
        }
    }

    /// Loads a plugin from a file, using the cache where possible.
    fn find_file(&self, wanted: &Wanted<'_>, file: &RegularFile) -> Result<Plugin, PluginError> {
        let path = file.path();
        file.vouch().map_err(|error| PluginError::File { path: path.to_owned(), error })?;
        let cache = Cache::open(&self.cache);
        let source = PluginSource::File(path.to_owned());
        if let Ok(cache) = &cache
            && let Some(known) = cache.recall(wanted.name, path)
        {
            let manifest = Manifest::parse(known.manifest.as_bytes());
            let admitted = wanted.admit(source.clone(), known.digest, manifest)?;
            if let Some(component) = self.load_cached(cache, &admitted) {
                return self.link(admitted, &component);
            }
        }
        let bytes = file.read(MAX_COMPONENT)?;
        let stamp = unchanged(file);
        let admitted =
            wanted.admit(source, heddle_grant::digest(&bytes), Manifest::read(&bytes))?;
        let unusable = |error| PluginError::Cache { dir: self.cache.clone(), error };
        let cache = cache.map_err(unusable)?;
        let component = match self.load_cached(&cache, &admitted) {
            Some(component) => component,
            None => {
                let native =
                    compiler::compile_in(&cache, &bytes, self.compiler.as_deref()).map_err(
                        |error| PluginError::Compile { plugin: admitted.to_string(), error },
                    )?;
                let code = cache.put(&admitted.digest, &native).map_err(unusable)?;
                let component = self.runtime.load_file(code.trusted());
                component.map_err(|reason| admitted.does_not_load(plain(&reason)))?
            }
        };
        if let (Some(stamp), Ok(Some(manifest))) = (stamp, manifest_text(&bytes)) {
            let manifest = String::from_utf8_lossy(manifest).into_owned();
            let known = Known { digest: admitted.digest.clone(), manifest };
            cache.note(wanted.name, path, stamp, known);
        }
        self.link(admitted, &component)
    }

    /// Returns the code that was compiled earlier, if it can still be loaded.
    fn load_cached(&self, cache: &Cache, admitted: &Admitted) -> Option<Component> {
        let code = cache.get(&admitted.digest)?;
        let loaded = self.runtime.load_file(code.trusted());
        // It was compiled for another processor, for example.
        let say = |reason: &String| {
            tracing::info!(error = %reason, "plugin {admitted}: cached code cannot be loaded; recompiling");
        };
        loaded.inspect_err(say).ok()
    }

    fn link(&self, admitted: Admitted, component: &Component) -> Result<Plugin, PluginError> {
        Plugin::link(admitted, self.runtime.clone(), component)
    }

    /// Loads a component from any file, for plugin developers: under any name, and with all
    /// capabilities that it requests. Caches nothing.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not a plugin for this host, or cannot be compiled or loaded.
    pub fn open(&self, path: &Path) -> Result<Plugin, PluginError> {
        self.open_component(PluginSource::File(path.to_owned()), &read_component(path)?)
    }

    /// Loads a component that was already read, like [`Catalogue::open`].
    ///
    /// # Errors
    ///
    /// As for [`Catalogue::open`].
    pub fn open_component(
        &self,
        source: PluginSource,
        bytes: &[u8],
    ) -> Result<Plugin, PluginError> {
        let plugin = source.to_string();
        let manifest = Manifest::read(bytes)
            .map_err(|error| PluginError::Manifest { plugin: plugin.clone(), error })?;
        check_name(&manifest.name)?;
        let limits = self.policy()?.limits(&manifest.name);
        let admitted = Admitted { manifest, source, digest: heddle_grant::digest(bytes), limits };
        let native = compiler::compile(bytes, self.compiler.as_deref())
            .map_err(|error| PluginError::Compile { plugin: plugin.clone(), error })?;
        let component = self
            .runtime
            .load(TrustedCode::vouch(&native))
            .map_err(|reason| PluginError::Load { plugin, reason: plain(&reason) })?;
        self.link(admitted, &component)
    }

    /// Reads the policy file, in which the operator says what plugins may do.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], when the file cannot be used.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        Policy::read(&self.policy)
    }

    /// Returns the capabilities that a plugin requests and is not granted. Embedded plugins and
    /// identical copies of them are granted all that they request. `digest` is the component's
    /// SHA-256, in hexadecimal.
    pub fn not_granted(policy: &Policy, manifest: &Manifest, digest: &str) -> Vec<Capability> {
        admission::not_granted(policy, manifest, digest)
    }

    /// Returns all plugins, sorted by name; of those with one name, the one that
    /// [`Catalogue::find`] uses comes first.
    pub fn list(&self) -> Vec<Entry> {
        search::list(&self.dirs)
    }
}

/// Reads a component from a regular file of at most 64 MiB.
///
/// # Errors
///
/// The file is missing, unreadable, not a regular file, or too large.
pub fn read_component(path: &Path) -> Result<Vec<u8>, ReadError> {
    heddle_files::read(path, MAX_COMPONENT)
}

/// Returns a file's stamp. None if the file has changed since it was opened.
fn unchanged(file: &RegularFile) -> Option<Stamp> {
    let stamp = Stamp::of(file.metadata());
    let now = file.file().metadata().ok()?;
    (Stamp::of(&now) == stamp).then_some(stamp)
}
