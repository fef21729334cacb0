//! Tests against a real kernel, compared with the output of `iptables-save` and `nft`, and with the
//! treatment of packets. Needs root, iproute2, iptables with both flavours, nftables and ping.
//!
//! Every test has an unnamed network namespace, which belongs to its thread and is removed with it;
//! tests with packets have three named ones.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

mod datagrams;
mod host;
mod iptables;
mod modes;
mod nftables;
mod packets;
mod refusals;
mod unbroken;
