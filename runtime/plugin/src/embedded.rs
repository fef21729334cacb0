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
}

impl Embedded {
    pub(crate) fn native(&self) -> TrustedCode<'static> {
        TrustedCode::vouch(self.native)
    }
}

/// All embedded plugins, sorted by name.
pub(crate) const EMBEDDED: &[Embedded] = &include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Components of the embedded plugins, in the same order. A table of its own: the linker omits it
/// from a program that does not call [`embedded_component`], which is the daemon.
static COMPONENTS: &[&[u8]] = &include!(concat!(env!("OUT_DIR"), "/components.rs"));

/// Returns the component of an embedded plugin, as the build produced it.
pub fn embedded_component(name: &str) -> Option<&'static [u8]> {
    let index = EMBEDDED.iter().position(|embedded| embedded.name == name)?;
    COMPONENTS.get(index).copied()
}
