//! The packet path: inner IP packets between a TUN device and UDP sockets, one packet a datagram and nothing else.
//!
//! The first half is data in, data out, and does no I/O:
//!
//! | module | question |
//! | --- | --- |
//! | [`headers`] | what is this packet, as far as the path needs to know? |
//! | [`ttl`] | may it go one hop further? |
//! | [`vnet`] | what does the kernel say about a packet that it did not finish, and how are we to say it? |
//! | [`checksum`] | the Internet checksum |
//! | [`split`] | which datagrams are this packet, as read from the device? |
//! | [`join`] | which packets for the device are these datagrams? |
//! | [`fragment`] | which fragments carry this packet over a smaller MTU? |
//! | [`icmp`] | what is its sender told? |
//! | [`limit`] | how often? |
//! | [`table`] | whose is this address? |

pub mod checksum;
pub mod fragment;
pub mod headers;
pub mod icmp;
pub mod join;
pub mod limit;
pub mod split;
pub mod table;
pub mod ttl;
pub mod vnet;
