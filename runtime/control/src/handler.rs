//! The daemon's side of the queries: what creates the answers.

use std::future::Future;
use std::sync::Arc;

use crate::{Leases, Status};

/// Creates the daemon's answers.
pub trait Handler: Send + Sync + 'static {
    /// Returns the daemon's state.
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send;

    /// Returns the records in the store.
    fn leases(&self) -> impl Future<Output = Result<Leases, Unavailable>> + Send;
}

impl<H: Handler> Handler for Arc<H> {
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send {
        H::status(self)
    }

    fn leases(&self) -> impl Future<Output = Result<Leases, Unavailable>> + Send {
        H::leases(self)
    }
}

/// The daemon cannot answer at present, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
