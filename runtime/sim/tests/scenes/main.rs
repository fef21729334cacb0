//! Single behaviours of a node among models: each test is a scene.

mod emitters;
mod host;
mod joining;
mod lease;
mod leases;
mod ownership;
mod packets;
mod peers;
mod probing;
mod readiness;
mod reconcile;
mod rules;
mod status;
mod underlay;
