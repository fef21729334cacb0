//! What a plugin says of itself and asks for, what an operator grants, and whether what it answers keeps to it.
//!
//! All of it is told from bytes and values: nothing here runs a plugin. That is `heddle-plugin`, which asks here before
//! it starts one, and again for each answer.
//!
//! | module | question |
//! | --- | --- |
//! | `manifest`, `section`, [`weight`] | what is this component, and how much does it take to come to life? |
//! | `capabilities` | what can be asked for and granted? |
//! | `policy` | what does the operator grant (`plugins.toml`)? |
//! | `limits` | how much may a plugin take? |
//! | [`check`] | may this plan hold, and may these files be written? |
//! | `node_plan`, `file` | what is checked: answers, taken over from a plugin and possible in themselves |
//! | [`text`] | how is what a plugin wrote shown to people? |

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
