//! The decision whether a component may be loaded.

use std::path::Path;

use heddle_core::plugin_source::PluginSource;
use heddle_grant::{Capability, Manifest, ManifestError, Policy, Role};

use crate::embedded::EMBEDDED;
use crate::plugin::Admitted;
use crate::plugin_error::PluginError;

/// The plugin to look for, and the policy that applies to it.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) policy: &'a Policy,
    /// The policy file.
    pub(super) file: &'a Path,
}

impl Wanted<'_> {
    /// Checks that a component may be loaded: it has the right name and role, matches the pinned
    /// digest, and requests no more capabilities than it is granted.
    pub(super) fn admit(
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
        let missing = not_granted(self.policy, &manifest, &digest);
        if !missing.is_empty() {
            let (name, policy) = (self.name.to_owned(), self.file.to_owned());
            return Err(PluginError::NotGranted { name, plugin, missing, policy });
        }
        Ok(Admitted { manifest, source, digest, limits: self.policy.limits(self.name) })
    }
}

/// Returns the capabilities that a plugin requests and is not granted: see
/// [`Catalogue::not_granted`](super::Catalogue::not_granted).
pub(super) fn not_granted(policy: &Policy, manifest: &Manifest, digest: &str) -> Vec<Capability> {
    let ships = EMBEDDED
        .iter()
        .any(|embedded| (embedded.name, embedded.digest) == (&manifest.name, digest));
    match ships {
        true => Vec::new(),
        false => manifest.capabilities.not_granted(&policy.grant(&manifest.name)),
    }
}
