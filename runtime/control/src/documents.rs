//! The documents that the daemon serves, each serialized once for all readers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use heddle_core::text;
use heddle_http::{Bytes, Shared};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::{Handler, Status, Unavailable};

/// Maximum age of a status for readers without access control: however many there are, they cost the daemon one status
/// a second.
pub const RECENT: Duration = Duration::from_secs(1);

/// A status, and its JSON once somebody has asked for it. Readers share both.
#[derive(Debug)]
pub struct Snapshot {
    status: Status,
    json: OnceLock<Result<Bytes, Unavailable>>,
}

impl Snapshot {
    /// Returns the status.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Returns it as JSON, the same bytes for everybody.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], when it cannot be written as JSON.
    pub fn json(&self) -> Result<Bytes, Unavailable> {
        self.json.get_or_init(|| json(&self.status)).clone()
    }
}

/// The documents that a [`Handler`] answers with. Clones share them.
#[derive(Debug)]
pub struct Documents<H> {
    handler: Arc<H>,
    status: Shared<Result<Arc<Snapshot>, Unavailable>>,
    leases: Shared<Result<Bytes, Unavailable>>,
}

impl<H> Clone for Documents<H> {
    fn clone(&self) -> Self {
        let Self { handler, status, leases } = self;
        Self { handler: handler.clone(), status: status.clone(), leases: leases.clone() }
    }
}

impl<H: Handler> Documents<H> {
    /// Returns the documents of a handler, which is asked on the current Tokio runtime, whichever reader wants to know.
    ///
    /// # Panics
    ///
    /// Without a runtime.
    pub fn new(handler: H) -> Self {
        let runtime = Handle::current();
        let (status, leases) = (Shared::new(runtime.clone()), Shared::new(runtime));
        Self { handler: Arc::new(handler), status, leases }
    }

    /// Returns a status that is at most so old.
    ///
    /// # Errors
    ///
    /// The handler's.
    pub async fn status(&self, age: Duration) -> Result<Arc<Snapshot>, Unavailable> {
        let make = || {
            let handler = self.handler.clone();
            async move {
                let status = handler.status().await?;
                Ok(Arc::new(Snapshot { status, json: OnceLock::new() }))
            }
        };
        self.status.get(age, make).await
    }

    /// Returns the leases as JSON, as they are after the call.
    ///
    /// # Errors
    ///
    /// The handler's.
    pub async fn leases(&self) -> Result<Bytes, Unavailable> {
        let make = || {
            let handler = self.handler.clone();
            async move { handler.leases().await.and_then(|leases| json(&leases)) }
        };
        self.leases.get(Duration::ZERO, make).await
    }
}

/// Writes a value without spare capacity, because readers may hold it for a while, and with hidden characters of others'
/// texts escaped.
fn json(value: &impl Serialize) -> Result<Bytes, Unavailable> {
    let written = serde_json::to_string(value).map_err(|error| Unavailable(error.to_string()))?;
    Ok(text::json(written).into_bytes().into_boxed_slice().into())
}
