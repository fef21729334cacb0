//! Plugin manifests, the operator's grants, and the checks of a plugin's answers against both.
//!
//! Everything here works on bytes and values; nothing runs a plugin. `heddle-plugin` does, and
//! calls this crate before it starts a plugin, and again for each answer.
//!
//! | module | question |
//! | --- | --- |
//! | `manifest`, `section`, [`weight`] | what is this component, and how much does it cost to instantiate? |
//! | `name` | what may a plugin be called? |
//! | `capabilities` | what can be requested and granted? |
//! | `policy` | what does the operator grant (`plugins.toml`)? |
//! | `limits` | how much may a plugin consume? |
//! | [`check`] | may this plan be applied, and may these files be written? |
//! | `node_plan`, `file` | what is checked? Answers of a plugin, converted and valid in themselves |
//! | `refusal` | why was an answer refused? |
//! | [`text`] | how is a plugin's text shown to people? |

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test looks at the host"))]

mod capabilities;
pub mod check;
mod file;
mod limits;
mod manifest;
mod name;
mod node_plan;
mod policy;
mod refusal;
mod section;
pub mod text;
pub mod weight;

pub use capabilities::{
    Capabilities, Capability, InvalidCapability, Kind, NamePattern, PathPattern, Ports,
};
pub use file::{File, Setting};
pub use limits::Limits;
pub use manifest::{
    Inspection, Manifest, ManifestError, Role, WIT_VERSION, World, digest, inspect, manifest_text,
    with_manifest,
};
pub use name::{InvalidName, check_name};
pub use node_plan::{MTU, NodePlan, Tunnel};
pub use policy::{Policy, PolicyError};
pub use refusal::Refusal;
