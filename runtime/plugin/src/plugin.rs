//! A loaded plugin: linked with the host, and started.

use std::fmt;
use std::sync::Arc;

use heddle_core::plugin_source::PluginSource;
use heddle_grant::text::plain;
use heddle_grant::{Capabilities, Limits, Manifest};
use wasmtime::component::{Component, InstancePre};

use crate::backend::Backend;
use crate::caller::Caller;
use crate::emitter::Emitter;
use crate::engine::Runtime;
use crate::host::{self, HostState};
use crate::packets::PacketPlugin;
use crate::plugin_error::PluginError;
use crate::worker::{Exports, WorkerHandle};

/// A component that passed all checks and may be loaded.
pub(crate) struct Admitted {
    pub(crate) manifest: Manifest,
    pub(crate) source: PluginSource,
    /// SHA-256 of the component, in hexadecimal.
    pub(crate) digest: String,
    pub(crate) limits: Limits,
}

impl Admitted {
    /// Returns the error of a component that does not load, for this reason.
    pub(crate) fn does_not_load(&self, reason: String) -> PluginError {
        PluginError::Load { plugin: self.to_string(), reason }
    }

    fn does_not_fit(&self, error: &wasmtime::Error) -> PluginError {
        self.does_not_load(plain(&format!("{error:#}")))
    }
}

impl fmt::Display for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.manifest.name, self.source)
    }
}

/// A plugin that was found and loaded, ready to be started.
pub struct Plugin {
    admitted: Admitted,
    runtime: Runtime,
    instance: InstancePre<HostState>,
}

impl Plugin {
    /// Links a component with its imports.
    pub(crate) fn link(
        admitted: Admitted,
        runtime: Runtime,
        component: &Component,
    ) -> Result<Self, PluginError> {
        let linked =
            host::linker(runtime.engine()).and_then(|linker| linker.instantiate_pre(component));
        match linked {
            Ok(instance) => Ok(Self { admitted, runtime, instance }),
            Err(error) => Err(admitted.does_not_fit(&error)),
        }
    }

    /// Returns the plugin's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.admitted.manifest
    }

    /// Returns the plugin's location.
    pub fn source(&self) -> &PluginSource {
        &self.admitted.source
    }

    /// Returns the SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.admitted.digest
    }

    /// Returns the plugin's resource limits, which the policy file sets.
    pub fn limits(&self) -> &Limits {
        &self.admitted.limits
    }

    /// Returns the same plugin with other limits.
    pub fn limited(self, limits: Limits) -> Self {
        Self { admitted: Admitted { limits, ..self.admitted }, ..self }
    }

    /// Starts the plugin as a backend, on a thread of its own. To be called within the Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// The plugin was not found as a [`Backend`](heddle_grant::Role::Backend), lacks a function of
    /// its world, or its
    /// thread cannot be started.
    pub fn backend(&self) -> Result<Backend, PluginError> {
        Ok(Backend::new(self.start()?, self.admitted.manifest.world, self.capabilities()))
    }

    /// Returns the plugin's packet path. None if its world has none. To be called within the Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// The plugin lacks a function of its world.
    pub fn packets(&self) -> Result<Option<PacketPlugin>, PluginError> {
        if !self.admitted.manifest.world.steers() {
            return Ok(None);
        }
        PacketPlugin::new(&self.admitted.manifest, self.instance.clone(), self.caller())
            .map(Some)
            .map_err(|error| self.admitted.does_not_fit(&error))
    }

    /// Starts the plugin as an emitter, on a thread of its own. To be called within the Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// The plugin was not found as an [`Emitter`](heddle_grant::Role::Emitter), lacks its function,
    /// or its thread cannot be
    /// started.
    pub fn emitter(&self) -> Result<Emitter, PluginError> {
        Ok(Emitter::new(self.start()?, self.capabilities()))
    }

    /// Returns the plugin's capabilities: all that it requests, because a plugin that is not
    /// granted them is not found.
    fn capabilities(&self) -> Arc<Capabilities> {
        Arc::new(self.admitted.manifest.capabilities.clone())
    }

    fn start<E: Exports>(&self) -> Result<WorkerHandle<E>, PluginError> {
        let Manifest { name, world, .. } = &self.admitted.manifest;
        let prepared = E::prepare(self.instance.clone(), *world)
            .map_err(|error| self.admitted.does_not_fit(&error))?;
        WorkerHandle::start(name, prepared, self.caller())
            .map_err(|error| PluginError::Engine(error.to_string()))
    }

    fn caller(&self) -> Caller {
        Caller::new(
            &self.admitted.manifest.name,
            self.runtime.clone(),
            self.admitted.limits.clone(),
        )
    }
}
