//! Finds custom sections in a component's binary without running it. Used by the library and,
//! through `#[path]`, by the build script of `heddle-plugin`.

use wasmparser::{BinaryReaderError, Parser, Payload};

/// Name of the custom section that holds the manifest.
pub(crate) const NAME: &str = "heddle:manifest";

/// Returns the manifest's text. It is in the component itself or in a module inside it, which is
/// where linkers put it.
pub(crate) fn manifest(component: &[u8]) -> Result<Option<&[u8]>, BinaryReaderError> {
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::CustomSection(section) = payload?
            && section.name() == NAME
        {
            return Ok(Some(section.data()));
        }
    }
    Ok(None)
}
