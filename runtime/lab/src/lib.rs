//! Temporary hosts on one machine, to run Heddle for real.
//!
//! A [`Lab`] is a switch. Each [`Host`] is a network namespace with a cable to it, addresses and a
//! default route; a [`Container`] is attached to a bridge of its host, as with Docker. [`Daemon`]
//! is a running `heddled`, [`Etcd`] a running etcd. A [`Machine`] is a host that runs systemd, with
//! its own file system. All of them are the real programs, and are removed when their value is
//! dropped, on a panic, and on SIGINT and SIGTERM.
//!
//! A lab's files, including etcd's data, are in memory: in `/dev/shm`, if it has 4 GiB free and
//! allows executing files, otherwise in the directory for temporary files. The environment variable
//! `HEDDLE_LAB_DIR` names another directory. The file systems of machines are larger, and on disk.
//!
//! Needs root, and `ip`, `bridge` and `ping` of the iproute2 and iputils packages; depending on its
//! use also `etcd` and `busybox`; for machines `systemd-nspawn` and `mmdebstrap`; and `tcpdump` to
//! diagnose a failing plugin.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a lab consists of programs, files and waiting")]

mod cgroup;
mod command;
mod command_line;
mod container;
mod daemon;
mod datagram;
pub mod demo;
mod error;
mod etcd;
mod host;
mod http;
mod image;
mod machine;
mod monitor;
mod namespace;
mod network;
mod ping;
mod processor;
mod registry;
mod requirements;
mod scratch;
mod screen;
mod stage;
mod store;
mod subnet_env;
mod transfer;
pub mod trial;
mod until;
mod view;
mod wait;

pub use command::run;
pub use container::Container;
pub use daemon::{Daemon, READY_LIMIT};
pub use datagram::next_datagram;
pub use error::Error;
pub use etcd::{Clients, Etcd, KeyValue, PREFIX, TlsFiles};
pub use host::Host;
pub use image::Image;
pub use machine::Machine;
pub use monitor::Monitor;
pub use namespace::Namespace;
pub use network::{Families, Lab};
pub use ping::{PingStream, Pings};
pub use processor::on_one_processor;
pub use rustix::process::Signal;
pub use scratch::{Scratch, Storage};
pub use screen::Verdict;
pub use store::Store;
pub use subnet_env::SubnetEnv;
pub use transfer::{Transfer, transfer};
pub use until::RaisedOnDrop;
pub use view::{FdbEntry, KernelState, Neighbour, Route};
pub use wait::wait_until;
