//! What Heddle knows and decides, as data and pure functions.
//!
//! Nothing here does I/O, waits, or knows of netlink, etcd or WebAssembly. The modules in the order in
//! which a node needs them:
//!
//! | module | question |
//! | --- | --- |
//! | [`config`] | what is the network? (`<prefix>/config`) |
//! | [`host_network`] | which destinations must the overlay leave to the host? |
//! | [`interface`] | which interface and which addresses do other hosts reach this one by? |
//! | [`explanation`] | why that one? |
//! | [`node`] | who is this node? |
//! | [`lease`] | which subnet belongs to whom? (`<prefix>/subnets/…`) |
//! | [`allocation`] | which subnet should this node have? |
//! | [`object`] | what can be planned: links, addresses, routes, neighbours, FDB entries, sysctls |
//! | [`desired`] | the union of all plans |
//! | [`diff`] | what has to change in the kernel for it to hold |
//! | [`looks`] | when is that looked at? |
//! | [`peers`] | which peers did a change of leases concern? |
//! | [`probe`] | where is a peer asked whether the overlay leads to it? |
//! | [`rate`] | how often may something happen? |
//! | [`retry`] | when is what failed tried again? |
//! | [`patience`] | when does a node that cannot join try again? |
//! | [`subnet_env`] | which subnet did this node have before? |
//! | [`underlay`] | is the interface still what it was? |
//! | [`cgroup`] | did the kernel end a child for want of memory? |
//! | [`text`] | how is what somebody else wrote shown to people? |

pub mod address;
pub mod allocation;
pub mod cgroup;
pub mod config;
pub mod desired;
pub mod diff;
pub mod explanation;
pub mod host_network;
pub mod interface;
pub mod lease;
pub mod looks;
pub mod node;
pub mod object;
mod overlaps;
pub mod patience;
pub mod peers;
pub mod probe;
mod public_addresses;
pub mod rate;
mod rejected;
pub mod retry;
pub mod split;
pub mod subnet_env;
pub mod text;
pub mod underlay;
