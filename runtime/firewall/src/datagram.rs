//! Evaluates the rules of the host for the datagrams that a backend exchanges with its peers.
//!
//! | module | job |
//! | --- | --- |
//! | `condition` | compares the conditions of a rule with a datagram |
//! | `table` | walks the chains of a table |
//! | `saved` | reads tables from the output of `iptables-save` |
//! | `listed` | reads tables from the listing of `nft` |
//! | `verdict` | reads the rules of the host, and evaluates all of them |

pub(crate) mod condition;
mod listed;
mod saved;
mod table;
pub(crate) mod verdict;
