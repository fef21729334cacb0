//! plugins
mod settings;
