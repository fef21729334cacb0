//! The packet path: carries inner IP packets between a TUN device and UDP sockets, one packet per
//! datagram, either bare or transformed by a plugin.
//!
//! These modules are pure functions and state machines without I/O:
//!
//! | module | job |
//! | --- | --- |
//! | [`headers`] | parses the headers of an inner packet |
//! | [`ttl`] | decrements the time to live |
//! | [`vnet`] | the virtio header, which says what segmentation and checksums are left to do |
//! | [`gso`] | splits a packet from the device into datagrams |
//! | [`gro`] | coalesces datagrams into packets for the device |
//! | [`fragment`] | fragments a packet for a smaller MTU |
//! | [`datagrams`] | iterates over the datagrams of one packet |
//! | [`icmp`] | builds ICMP errors for a packet's sender |
//! | [`table`] | maps addresses to peers |
//! | [`destinations`] | checks where packets from peers may go |
//! | `checksum`, `transport`, `numbers` | helpers for headers |
//!
//! These modules do the I/O. Each direction has its own threads, which block only in `poll` and do
//! not belong to an async runtime. Decisions are separate functions or small state machines here,
//! too:
//!
//! | module | job |
//! | --- | --- |
//! | `path` | opens, starts and stops a path |
//! | `shared` | settings and state that all threads share |
//! | `outbound`, `inbound` | the threads of each direction, which process packets in batches |
//! | `tun`, `socket` | reads and writes packets, many per system call |
//! | `lanes`, `lane_filter` | receive buffers, and which source uses which |
//! | `sender`, `message` | sends datagrams, several in one message |
//! | `path_mtu` | caches the path MTU of peers |
//! | `raw` | sends ICMP errors to senders behind this host |
//! | `steer`, `transformed` | chooses the peer of a packet; checks a plugin's answers |
//! | `forwarding` | what the threads forward by, and its replacement at run time |
//! | `counters`, `notice`, `error` | counters, rate-limited log lines, errors |

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may run programs and wait"))]

mod checksum;
mod counters;
pub mod datagrams;
pub mod destinations;
mod error;
mod forwarding;
pub mod fragment;
pub mod gro;
pub mod gso;
pub mod headers;
pub mod icmp;
mod inbound;
mod lane_filter;
mod lanes;
mod message;
mod notice;
mod numbers;
mod outbound;
mod path;
mod path_mtu;
mod raw;
mod sender;
mod shared;
mod socket;
mod steer;
pub mod table;
mod transformed;
mod transport;
pub mod ttl;
mod tun;
pub mod vnet;

#[cfg(test)]
mod samples;

pub use counters::{Counter, CounterKind, Counters};
pub use destinations::Destinations;
pub use error::OpenError;
pub use forwarding::{Forwarding, Transforms};
pub use path::{Path, Running};
pub use shared::{Failure, Settings};
pub use steer::{FALLBACK, Steer, TableSteering, Transform};
pub use table::{Peer, Table};
