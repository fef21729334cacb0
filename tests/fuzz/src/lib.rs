//! Code shared by the fuzz targets.

#![forbid(unsafe_code)]

pub mod packet;
pub mod world;
