//! Tests of the stores against real etcd processes and directories.

mod acquiring;
mod behaviour;
mod bounds;
mod connecting;
mod etcd;
mod fixture;
mod keeping;
mod outages;
