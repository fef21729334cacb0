//! What targets have in common.

pub mod packet;
pub mod world;
