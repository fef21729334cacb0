//! Copies a network from etcd's v2 API to its v3 API: the network config, leases with the time that
//! they have left, and reservations.
//!
//! flannel up to 0.17 keeps its data in the v2 API (its `subnet/etcdv2`). Nothing is written there.
//! In the v3 API each write compares: it creates a key, or replaces exactly the version that was
//! judged. So daemons may run meanwhile, and a second run finds nothing to do.
//!
//! | module | job |
//! | --- | --- |
//! | `source` | sorts the keys of the v2 API into config, records and others |
//! | `decision` | what becomes of each key, given what the v3 API holds: pure |
//! | `target` | what is needed of the v3 API |
//! | `run` | the steps: read both, decide, write |
//! | `report` | what became of each key, for people and programs |

#![forbid(unsafe_code)]

mod decision;
mod report;
mod run;
mod source;
mod target;

pub use decision::Options;
pub use report::{Line, Outcome, Report};
pub use run::{ImportError, import};
pub use target::Target;
