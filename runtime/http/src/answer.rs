//! Sites, and their answers.

use std::future::Future;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

/// The kind of whatever is for people.
const TEXT: &str = "text/plain; charset=utf-8";

/// The documents that a server serves, by path.
pub trait Site: Send + Sync + 'static {
    /// Returns what is at a path, which has no query.
    fn answer(&self, path: &str) -> impl Future<Output = Answer> + Send;

    /// Returns the headers of every answer, refusals included.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }
}

/// An answer. The body is shared, not copied, for each client that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) header: Option<(HeaderName, &'static str)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns a document of this content type, with status 200.
    pub fn document(kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, kind, header: None, body: body.into() }
    }

    /// Returns a text for people.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self { status, ..Self::document(TEXT, text) }
    }

    /// Returns the answer where nothing is.
    pub fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "")
    }

    /// Returns the same with a header.
    pub(crate) fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// Returns its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns its body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}
