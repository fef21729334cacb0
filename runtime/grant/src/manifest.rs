//! A plugin's manifest, readable without running the plugin.

use std::fmt;

use semver::Version;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Encoding, Parser, Payload};

use crate::capabilities::Capabilities;
use crate::section;
use crate::text::{memory, plain};
use crate::weight;

/// Version of the interface that this host implements: the package `heddle:overlay` in `wit/`.
pub const WIT_VERSION: Version = Version::new(0, 1, 0);

/// Length limit of a manifest, in bytes. Its capabilities are compared with every planned object,
/// and parts of it are shown.
const MAX_MANIFEST: usize = 16 << 10;

/// The custom section `heddle:manifest`: a JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// Name of the plugin: the file's name, and the value of `Backend.Type`.
    pub name: String,
    /// The plugin's own version.
    pub version: Version,
    /// The version of `heddle:overlay` that the plugin was built for.
    pub wit: Version,
    /// The world that the plugin implements.
    pub world: World,
    /// The capabilities that the plugin requests.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// The keys of `Backend` that the plugin reads, besides `Type`. None if it does not declare
    /// them.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
}

/// A world of `heddle:overlay`: the interface that a plugin implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Plans; the packets stay in the kernel.
    BackendPlugin,
    /// Plans, and steers packets in user space.
    PacketBackendPlugin,
    /// Plans, steers packets in user space, and transforms their format between hosts.
    TransformPlugin,
    /// Writes files.
    EmitterPlugin,
}

/// The use of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Connects the nodes.
    Backend,
    /// Turns the node's lease into files.
    Emitter,
}

impl World {
    /// All worlds.
    const ALL: [Self; 4] = [
        Self::BackendPlugin,
        Self::PacketBackendPlugin,
        Self::TransformPlugin,
        Self::EmitterPlugin,
    ];

    /// Returns the role of plugins of this world.
    pub fn role(self) -> Role {
        match self {
            Self::BackendPlugin | Self::PacketBackendPlugin | Self::TransformPlugin => {
                Role::Backend
            }
            Self::EmitterPlugin => Role::Emitter,
        }
    }

    /// Returns a short description of plugins of this world.
    pub fn summary(self) -> &'static str {
        match self {
            Self::BackendPlugin => "plans",
            Self::PacketBackendPlugin => "plans, and steers packets",
            Self::TransformPlugin => "plans, and steers and transforms packets",
            Self::EmitterPlugin => "writes files",
        }
    }

    /// Returns true if plugins of this world steer packets, batch by batch.
    pub fn steers(self) -> bool {
        matches!(self, Self::PacketBackendPlugin | Self::TransformPlugin)
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackendPlugin => "backend-plugin",
            Self::PacketBackendPlugin => "packet-backend-plugin",
            Self::TransformPlugin => "transform-plugin",
            Self::EmitterPlugin => "emitter-plugin",
        })
    }
}

/// Lists the worlds that satisfy a condition, for a message.
fn worlds(condition: impl Fn(World) -> bool) -> String {
    let names = World::ALL.into_iter().filter(|world| condition(*world));
    names.map(|world| world.to_string()).collect::<Vec<_>>().join(" or ")
}

/// The reason why a file is not a plugin, or not one for this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The file is not WebAssembly, or is damaged.
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// The component has no manifest.
    #[error(
        "has no manifest: expected a custom section `heddle:manifest`, which the macros \
         `export_…!` of heddle-sdk put there, and `heddle plugin manifest` in other languages"
    )]
    Missing,
    /// The component's manifest cannot be parsed.
    #[error(
        "has a manifest that cannot be read ({0}): expected \
         {{\"name\":…,\"version\":…,\"wit\":\"{WIT_VERSION}\",\"world\":…,\"capabilities\":…}}, with the world {worlds}", worlds = worlds(|_| true)
    )]
    Malformed(String),
    /// The component's manifest is too long.
    #[error("has a manifest of {} bytes: expected at most {}", .0, memory(MAX_MANIFEST))]
    TooLong(usize),
    /// The component is too expensive to instantiate.
    #[error(
        "is too large to instantiate: {found} functions, variables and table elements in its instances, \
         expected at most {}",
        weight::LIMIT
    )]
    TooHeavy {
        /// The component's [weight](weight::of).
        found: u64,
    },
    /// The component was built for a version of the interface that this host does not support.
    #[error("was built for WIT {found}, and this host supports {WIT_VERSION}: expected {}", .expected)]
    Wit {
        /// The version that the plugin was built for.
        found: Version,
        /// The remedy.
        expected: &'static str,
    },
    /// The component already has a manifest.
    #[error(
        "has a manifest already: expected a component without one, as the language's tools make it"
    )]
    Present,
    /// The manifest has another name than the file.
    #[error("has the name `{found}`: expected `{expected}`, as its file")]
    Name {
        /// Name in the manifest.
        found: String,
        /// Name of the file.
        expected: String,
    },
    /// The plugin's world does not have the role that is needed.
    #[error("implements the world {found}: expected {}", worlds(|world| world.role() == *.expected))]
    World {
        /// World of the plugin.
        found: World,
        /// The role that is needed.
        expected: Role,
    },
}

/// Returns the manifest's text, unparsed. None if the component has none.
///
/// # Errors
///
/// The bytes are not a component.
pub fn manifest_text(component: &[u8]) -> Result<Option<&[u8]>, ManifestError> {
    section::manifest(component).map_err(|error| broken(&error))
}

fn broken(error: &wasmparser::BinaryReaderError) -> ManifestError {
    ManifestError::NotAComponent(plain(error.message()))
}

impl Manifest {
    /// Reads the manifest of a component.
    ///
    /// # Errors
    ///
    /// The bytes are not a component, the component has no manifest or is too expensive to
    /// instantiate, or the manifest cannot be parsed.
    pub fn read(component: &[u8]) -> Result<Self, ManifestError> {
        match Parser::new(0).parse_all(component).next() {
            Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => {}
            Some(Ok(_)) | None => {
                let found = "it is a core module; build it for wasm32-wasip2".to_owned();
                return Err(ManifestError::NotAComponent(found));
            }
            Some(Err(error)) => return Err(broken(&error)),
        }
        let text = manifest_text(component)?;
        // Checked first: a damaged component cannot be repaired by adding a manifest.
        let found = weight::of(component).map_err(|error| broken(&error))?;
        let manifest = Self::parse(text.ok_or(ManifestError::Missing)?)?;
        match found > weight::LIMIT {
            true => Err(ManifestError::TooHeavy { found }),
            false => Ok(manifest),
        }
    }

    /// Parses a manifest's text.
    ///
    /// # Errors
    ///
    /// The text is too long, is for another version of the interface, or cannot be parsed.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        /// The part common to all versions, which tells a newer manifest apart from garbage.
        #[derive(Deserialize)]
        struct Header {
            wit: Version,
        }
        if text.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLong(text.len()));
        }
        let malformed =
            |error: serde_json::Error| ManifestError::Malformed(plain(&error.to_string()));
        let header: Header = serde_json::from_slice(text).map_err(malformed)?;
        check_wit(header.wit)?;
        serde_json::from_slice(text).map_err(malformed)
    }

    /// Checks that the plugin can be used under this name and in this role.
    ///
    /// # Errors
    ///
    /// The manifest has another name, or the world has another role.
    pub fn check(&self, name: &str, role: Role) -> Result<(), ManifestError> {
        if self.name != name {
            return Err(ManifestError::Name {
                found: plain(&self.name),
                expected: name.to_owned(),
            });
        }
        if self.world.role() != role {
            return Err(ManifestError::World { found: self.world, expected: role });
        }
        Ok(())
    }
}

/// Checks the version of the interface. Minor additions come within 0.x, so an older plugin works,
/// and a newer one may import what this host lacks.
fn check_wit(found: Version) -> Result<(), ManifestError> {
    let expected = if found > WIT_VERSION {
        "an older plugin, or a newer heddled"
    } else if (found.major, found.minor) != (WIT_VERSION.major, WIT_VERSION.minor) {
        "a newer plugin"
    } else {
        return Ok(());
    };
    Err(ManifestError::Wit { found, expected })
}

/// The properties of a component that can be read without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its manifest.
    pub manifest: Manifest,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// The file's size in bytes.
    pub size: usize,
    /// The interfaces that the component imports, in order of appearance.
    pub imports: Vec<String>,
}

/// Inspects a component.
///
/// # Errors
///
/// As in [`Manifest::read`].
pub fn inspect(component: &[u8]) -> Result<Inspection, ManifestError> {
    let manifest = Manifest::read(component)?;
    let mut imports = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|error| broken(&error))?;
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            // Only imports of the component itself: nested components import from their
            // surroundings.
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section.into_iter().flatten() {
                    imports.push(import.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(Inspection { manifest, digest: digest(component), size: component.len(), imports })
}

/// Returns the component with a manifest added.
///
/// # Errors
///
/// The bytes are not a component, are too expensive to instantiate, or have a manifest already; or
/// `manifest` is not one.
pub fn with_manifest(component: &[u8], manifest: &[u8]) -> Result<Vec<u8>, ManifestError> {
    match Manifest::read(component) {
        Err(ManifestError::Missing) => {}
        Err(error @ ManifestError::NotAComponent(_)) => return Err(error),
        Ok(_) | Err(_) => return Err(ManifestError::Present),
    }
    Manifest::parse(manifest)?;
    let mut with = component.to_vec();
    let section = CustomSection { name: section::NAME.into(), data: manifest.into() };
    section.append_to_component(&mut with);
    Manifest::read(&with)?;
    Ok(with)
}

/// Returns the SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
