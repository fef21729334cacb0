//! Heddle's data model and decisions, as plain data and pure functions.
//!
//! Nothing in this crate does I/O, blocks, or depends on netlink, etcd or WebAssembly. The modules,
//! in the order in which a node needs them:
//!
//! | module | question |
//! | --- | --- |
//! | [`config`] | what is the network? (`<prefix>/config`) |
//! | [`host_network`] | which destinations must the overlay leave to the host? |
//! | [`address`] | how are addresses of the link layer and names of links written? |
//! | [`interface`] | which interface and which addresses do other hosts reach this one by? |
//! | [`explanation`] | why that interface? |
//! | [`node`] | who is this node? |
//! | [`family`] | which value does each address family have? |
//! | [`record`] | what does the store hold? (`<prefix>/subnets/…`) |
//! | [`lease`] | which subnet belongs to which node? |
//! | [`site`] | what is a plugin told about this node? |
//! | [`allocation`] | which subnet should this node have? |
//! | [`object`] | what can be planned? Links, addresses, routes, neighbours, FDB entries, sysctls |
//! | [`desired`] | what should the kernel hold? The union of all plans, with tie-breaks |
//! | `scope` | which part of the kernel's state is this daemon's? |
//! | [`split`] | which routes replace one route to a whole overlay network that the host's own networks forbid? |
//! | [`diff`] | which changes make the kernel match the desired state? |
//! | [`resync_timer`] | when is the next full resync due? |
//! | [`peers`] | which peers does a change of leases affect? |
//! | [`link_counters`] | what has a device carried? |
//! | [`plugin_source`] | where does a plugin come from? |
//! | [`probe`] | which address of a peer is probed for reachability? |
//! | [`rate`] | how often may something happen? (rate limits) |
//! | [`pacing`] | when may recurring work run again? (backoff, retry queue, duty cycle, debounce) |
//! | [`join_backoff`] | when does a node that failed to join try again? (join backoff) |
//! | [`subnet_env`] | which subnet did this node have before? |
//! | [`underlay`] | is the interface still what it was? |
//! | [`cgroup`] | did the kernel's OOM killer end a child? |
//! | [`spelling`] | which name was meant by a misspelt one? |
//! | [`text`] | how is text from an untrusted source shown to people? |

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test begins at the present time"))]

pub mod address;
pub mod allocation;
pub mod cgroup;
pub mod config;
pub mod desired;
pub mod diff;
pub mod explanation;
pub mod family;
pub mod host_network;
pub mod interface;
pub mod join_backoff;
pub mod lease;
pub mod link_counters;
pub mod node;
pub mod object;
pub mod pacing;
pub mod peers;
pub mod plugin_source;
pub mod probe;
pub mod rate;
pub mod record;
pub mod resync_timer;
mod scope;
pub mod site;
pub mod spelling;
pub mod split;
pub mod subnet_env;
pub mod text;
pub mod underlay;
