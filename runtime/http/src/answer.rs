//! Sites, and their answers to requests.

use std::future::Future;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};

use crate::access::{Hosts, refusal};

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
    status: StatusCode,
    kind: &'static str,
    header: Option<(HeaderName, &'static str)>,
    body: Bytes,
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

/// Answers one request. `over_loopback` tells whether it came to an address of the loopback.
pub async fn respond<B: Body>(
    site: &impl Site,
    hosts: Hosts,
    over_loopback: bool,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    response(site, answer(site, hosts, over_loopback, request).await)
}

pub(crate) async fn answer<B: Body>(
    site: &impl Site,
    hosts: Hosts,
    over_loopback: bool,
    request: &Request<B>,
) -> Answer {
    match refusal(hosts, over_loopback, request) {
        Some(refused) => refused,
        None => site.answer(request.uri().path()).await,
    }
}

pub(crate) fn response(site: &impl Site, answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    headers.extend(answer.header.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.extend(site.headers());
    response
}
