//! Tests of the stores against real etcd processes and directories.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

mod acquiring;
mod behaviour;
mod bounds;
mod connecting;
mod etcd;
mod fixture;
mod keeping;
mod outages;
mod proxy;
mod reaching;
mod v2;
