//! The packet path: inner IP packets between a TUN device and UDP sockets, one packet a datagram, as it is or as a
//! plugin transforms it.
//!
//! The first half is data in, data out, and does no I/O:
//!
//! | module | question |
//! | --- | --- |
//! | [`headers`] | what is this packet, as far as the path needs to know? |
//! | [`ttl`] | may it go one hop further? |
//! | [`vnet`] | what of a packet is left to be done, by us or by the kernel? |
//! | [`gso`] | which datagrams are this packet from the device? |
//! | [`gro`] | which packets for the device are these datagrams? |
//! | [`fragment`] | which fragments carry this packet over a smaller MTU? |
//! | [`datagrams`] | what is sent of a packet, piece by piece? |
//! | [`icmp`] | what is a packet's sender told? |
//! | [`table`] | whose is this address? |
//! | [`destinations`] | may a peer's packet go there? |
//! | `checksum`, `transport` | what of it all is the same for TCP and UDP? |
//!
//! The other half does the I/O, each direction on threads of its own that block in `poll` and nowhere else, and belong
//! to no runtime. Where it decides, that is a function or a small state machine of its own, too:
//!
//! | module | question |
//! | --- | --- |
//! | `path` | from when to when, and between which places? |
//! | `outbound`, `inbound` | what happens to a batch of packets, this way and that way? |
//! | `tun`, `socket` | how are packets read and written, many with one call? |
//! | `lanes`, `lane_filter` | whose datagrams wait in which receive buffer? |
//! | `sender`, `message` | which datagrams go to the kernel together? |
//! | `path_mtu` | what fits the way to a peer? |
//! | `raw` | how do senders behind this host learn of it? |
//! | `steer`, `transformed` | who says where packets go, and is it a proper answer? |
//! | `forwarding` | what does the path go by, and how is that replaced? |
//! | `counters`, `notice`, `error` | what is told of all this? |

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

pub use counters::Counters;
pub use destinations::Destinations;
pub use error::OpenError;
pub use forwarding::{Forwarding, Transforms};
pub use path::{Path, Running};
pub use shared::{Failure, Settings};
pub use steer::{FALLBACK, Steer, TableSteering, Transform};
pub use table::{Peer, Table};
