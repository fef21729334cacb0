//! The plugin catalogue: finds plugins in files and in the binary, checks them and loads them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heddle_core::plugin_source::PluginSource;
use heddle_files::{ReadError, RegularFile, TrustError, Untrusted, vouch};
use heddle_grant::text::plain;
use heddle_grant::{
    Capabilities, Capability, InvalidName, Limits, Manifest, ManifestError, Policy, PolicyError,
    Role, check_name, manifest_text,
};
use wasmtime::component::{Component, InstancePre};

use crate::backend::Backend;
use crate::cache::{Cache, CacheError, Known, Stamp};
use crate::caller::Caller;
use crate::compiler::{self, CompileError};
use crate::embedded::{EMBEDDED, Embedded};
use crate::emitter::Emitter;
use crate::engine::{Runtime, TrustedCode};
use crate::host::{self, HostState};
use crate::packets::PacketPlugin;
use crate::worker::{Exports, WorkerHandle};

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

/// A plugin that was found and loaded, ready to be started.
pub struct Plugin {
    manifest: Manifest,
    source: PluginSource,
    digest: String,
    limits: Limits,
    runtime: Runtime,
    instance: InstancePre<HostState>,
}

/// A plugin as [`Catalogue::list`] shows it.
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

/// The reason why a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// No plugin has this name.
    #[error(
        "there is no plugin `{name}`: looked for {}; inside the binary are {}",
        .searched.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        .embedded.join(", ")
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
        .missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "), .policy.display()
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

/// A plugin that was found but not loaded yet.
enum Found {
    File(RegularFile),
    Embedded(&'static Embedded),
}

/// The plugin to look for, and the policy that applies to it.
struct Wanted<'a> {
    name: &'a str,
    role: Role,
    policy: &'a Policy,
    /// The policy file.
    file: &'a Path,
}

/// A component that passed all checks and may be loaded.
struct Admitted {
    manifest: Manifest,
    source: PluginSource,
    digest: String,
    limits: Limits,
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
        let found = self.look_for(name)?;
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
        let say = |reason: &String| tracing::info!(error = %reason, "plugin {admitted}: cached code cannot be loaded; recompiling");
        loaded.inspect_err(say).ok()
    }

    fn link(&self, admitted: Admitted, component: &Component) -> Result<Plugin, PluginError> {
        let Admitted { manifest, source, digest, limits } = admitted;
        Plugin::link(manifest, source, digest, limits, self.runtime.clone(), component)
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
        let native = compiler::compile(bytes, self.compiler.as_deref())
            .map_err(|error| PluginError::Compile { plugin: plugin.clone(), error })?;
        let component = self
            .runtime
            .load(TrustedCode::vouch(&native))
            .map_err(|reason| PluginError::Load { plugin, reason: plain(&reason) })?;
        let digest = heddle_grant::digest(bytes);
        Plugin::link(manifest, source, digest, limits, self.runtime.clone(), &component)
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
        let ships = EMBEDDED
            .iter()
            .any(|embedded| (embedded.name, embedded.digest) == (&manifest.name, digest));
        match ships {
            true => Vec::new(),
            false => manifest.capabilities.not_granted(&policy.grant(&manifest.name)),
        }
    }

    /// Returns all plugins, sorted by name; of those with one name, the one that
    /// [`Catalogue::find`] uses comes first.
    pub fn list(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for dir in &self.dirs {
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

    fn look_for(&self, name: &str) -> Result<Found, PluginError> {
        check_name(name)?;
        let mut searched = Vec::new();
        for dir in &self.dirs {
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
}

impl Wanted<'_> {
    /// Checks that a component may be loaded: it has the right name and role, matches the pinned
    /// digest, and requests no more capabilities than it is granted.
    fn admit(
        &self,
        source: PluginSource,
        digest: String,
        manifest: Result<Manifest, ManifestError>,
    ) -> Result<Admitted, PluginError> {
        let plugin = format!("{} ({source})", self.name);
        let manifest = manifest.and_then(|manifest| {
            manifest.check(self.name, self.role)?;
            Ok(manifest)
        });
        let manifest =
            manifest.map_err(|error| PluginError::Manifest { plugin: plugin.clone(), error })?;
        if let Some(expected) = self.policy.digest(self.name).filter(|wanted| *wanted != digest) {
            let (expected, policy) = (expected.to_owned(), self.file.to_owned());
            return Err(PluginError::Digest { plugin, found: digest, expected, policy });
        }
        let missing = Catalogue::not_granted(self.policy, &manifest, &digest);
        if !missing.is_empty() {
            let (name, policy) = (self.name.to_owned(), self.file.to_owned());
            return Err(PluginError::NotGranted { name, plugin, missing, policy });
        }
        Ok(Admitted { manifest, source, digest, limits: self.policy.limits(self.name) })
    }
}

impl Admitted {
    fn does_not_load(&self, reason: String) -> PluginError {
        PluginError::Load { plugin: self.to_string(), reason }
    }
}

impl fmt::Display for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.manifest.name, self.source)
    }
}

impl Plugin {
    /// Links a component with its imports.
    pub(crate) fn link(
        manifest: Manifest,
        source: PluginSource,
        digest: String,
        limits: Limits,
        runtime: Runtime,
        component: &Component,
    ) -> Result<Self, PluginError> {
        let linked =
            host::linker(runtime.engine()).and_then(|linker| linker.instantiate_pre(component));
        match linked {
            Ok(instance) => Ok(Self { manifest, source, digest, limits, runtime, instance }),
            Err(error) => Err(PluginError::Load {
                plugin: format!("{} ({source})", manifest.name),
                reason: plain(&format!("{error:#}")),
            }),
        }
    }

    /// Returns the plugin's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the plugin's location.
    pub fn source(&self) -> &PluginSource {
        &self.source
    }

    /// Returns the SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the plugin's resource limits, which the policy file sets.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the same plugin with other limits.
    pub fn limited(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Starts the plugin as a backend, on a thread of its own. To be called within the Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// The plugin was not found as a [`Role::Backend`], lacks a function of its world, or its
    /// thread cannot be started.
    pub fn backend(&self) -> Result<Backend, PluginError> {
        Ok(Backend::new(self.start()?, self.manifest.world, self.capabilities()))
    }

    /// Returns the plugin's packet path. None if its world has none. To be called within the Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// The plugin lacks a function of its world.
    pub fn packets(&self) -> Result<Option<PacketPlugin>, PluginError> {
        if !self.manifest.world.steers() {
            return Ok(None);
        }
        PacketPlugin::new(&self.manifest, self.instance.clone(), self.caller())
            .map(Some)
            .map_err(|error| self.does_not_fit(&error))
    }

    /// Starts the plugin as an emitter, on a thread of its own. To be called within the Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// The plugin was not found as a [`Role::Emitter`], lacks its function, or its thread cannot be
    /// started.
    pub fn emitter(&self) -> Result<Emitter, PluginError> {
        Ok(Emitter::new(self.start()?, self.capabilities()))
    }

    /// Returns the plugin's capabilities: all that it requests, because a plugin that is not
    /// granted them is not found.
    fn capabilities(&self) -> Arc<Capabilities> {
        Arc::new(self.manifest.capabilities.clone())
    }

    fn start<E: Exports>(&self) -> Result<WorkerHandle<E>, PluginError> {
        let Manifest { name, world, .. } = &self.manifest;
        let prepared =
            E::prepare(self.instance.clone(), *world).map_err(|error| self.does_not_fit(&error))?;
        WorkerHandle::start(name, prepared, self.caller())
            .map_err(|error| PluginError::Engine(error.to_string()))
    }

    fn caller(&self) -> Caller {
        Caller::new(&self.manifest.name, self.runtime.clone(), self.limits.clone())
    }

    fn does_not_fit(&self, error: &wasmtime::Error) -> PluginError {
        PluginError::Load {
            plugin: format!("{} ({})", self.manifest.name, self.source),
            reason: plain(&format!("{error:#}")),
        }
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

/// Returns the manifest of a file in a trusted directory, or the reason why [`Catalogue::find`]
/// would reject the file.
fn listed_manifest(path: &Path) -> Result<Manifest, String> {
    let file = RegularFile::open(path).map_err(|error| error.to_string())?;
    file.vouch().map_err(|error| error.to_string())?;
    let component = file.read(MAX_COMPONENT).map_err(|error| error.to_string())?;
    Manifest::read(&component).map_err(|error| error.to_string())
}
