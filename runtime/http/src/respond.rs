//! Responses to requests: a site's answer, or a refusal.

use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response};

use crate::access::{Hosts, refusal};
use crate::{Answer, Bytes, Site};

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
