//! The HTTP server behind the health port, the status page and the control socket.
//!
//! The server assumes that a client does harm. It speaks HTTP/1 only, answers GET and HEAD, and bounds everything that a
//! client can make it hold: connections, the time for each step of an exchange, read buffers, documents in the hands of
//! readers, and file descriptors. A client that exceeds a bound loses its connection; nobody else notices.
//!
//! | module | job |
//! | --- | --- |
//! | [`listener`] | a TCP address, with socket buffers and timeouts that bound what the kernel holds |
//! | [`server`] | the accept loop: makes room for the newest connection, backs off when accepting fails |
//! | `pool` | which connection has to go: expired, the oldest when there are too many, or holding an old document |
//! | `connection` | one connection: hyper's HTTP/1, watched for progress |
//! | `respond` | the response: a site's answer, or a refusal |
//! | [`access`] | which requests are answered at all (DNS rebinding) |
//! | [`answer`] | what a [`Site`] answers |
//! | [`shared`] | one result for everybody who asks at the same time |
//! | [`worker`] | a thread of its own for servers that anybody can reach |
//! | [`descriptors`] | how many connections `RLIMIT_NOFILE` allows beside the daemon's own work |

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may run programs and wait"))]

pub mod access;
pub mod answer;
pub mod descriptors;
pub mod listener;
pub mod server;
pub mod shared;
pub mod worker;

mod connection;
mod pool;
mod respond;

pub use access::Hosts;
pub use answer::{Answer, Site};
pub use bytes::Bytes;
pub use descriptors::Descriptors;
pub use hyper::{StatusCode, header};
pub use listener::{ListenError, Listener};
pub use respond::respond;
pub use server::Server;
pub use shared::Shared;
pub use worker::Worker;
