//! Code shared by the fuzz targets.

pub mod packet;
pub mod world;
