//! The packet path: inner IP packets between a TUN device and UDP sockets, one packet a datagram and nothing else.
//!
//! The first half is data in, data out, and does no I/O:
//!
//! | module | question |
//! | --- | --- |
//! | [`headers`] | what is this packet, as far as the path needs to know? |
//! | [`ttl`] | may it go one hop further? |
//! | [`vnet`] | what of a packet is left to be done, by us or by the kernel? |
//! | [`split`] | which datagrams are this packet from the device? |
//! | [`join`] | which packets for the device are these datagrams? |
//! | [`fragment`] | which fragments carry this packet over a smaller MTU? |
//! | [`datagrams`] | what is sent of a packet, piece by piece? |
//! | [`icmp`] | what is a packet's sender told? |
//! | [`limit`] | how often? |
//! | [`table`] | whose is this address? |

pub mod datagrams;
pub mod fragment;
pub mod headers;
pub mod icmp;
pub mod join;
pub mod limit;
pub mod split;
pub mod table;
pub mod ttl;
pub mod vnet;

mod transport;

#[cfg(test)]
mod samples;
