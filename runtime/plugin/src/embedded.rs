//! Plugins embedded in the binary.

use crate::engine::TrustedCode;

/// A plugin that the build script built and compiled.
pub(crate) struct Embedded {
    pub(crate) name: &'static str,
    /// The text of its manifest.
    pub(crate) manifest: &'static str,
    /// SHA-256 of the component, in hexadecimal.
    pub(crate) digest: &'static str,
    native: &'static [u8],
    /// The component itself, which the daemon does not need.
    #[cfg(feature = "compiler")]
    pub(crate) component: &'static [u8],
}

impl Embedded {
    pub(crate) fn native(&self) -> TrustedCode<'static> {
        TrustedCode::vouch(self.native)
    }
}

/// All embedded plugins, sorted by name.
pub(crate) const EMBEDDED: &[Embedded] = &include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Returns the component of an embedded plugin, as the build produced it.
#[cfg(feature = "compiler")]
pub fn embedded_component(name: &str) -> Option<&'static [u8]> {
    EMBEDDED.iter().find(|embedded| embedded.name == name).map(|embedded| embedded.component)
}
