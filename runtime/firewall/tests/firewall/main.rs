//! The crate against real kernels, compared with what `iptables-save` and `nft` show, and with what becomes of packets.
//! Needs root, iproute2, iptables with both flavours, nftables and ping.
//!
//! Every test has a network namespace without a name, which belongs to its thread and goes with it; those with packets
//! have three with names.

mod host;
mod iptables;
mod modes;
mod nftables;
mod packets;
mod refusals;
mod unbroken;
