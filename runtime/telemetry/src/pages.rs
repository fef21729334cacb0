//! The endpoints `/`, `/status.json` and `/metrics`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use heddle_control::{Documents, Handler, RECENT, Snapshot, Unavailable};
use heddle_http::header::{self, HeaderName, HeaderValue};
use heddle_http::{Answer, Bytes, Site, StatusCode};

use crate::metrics::{Timings, metrics};
use crate::page::{PAGE, POLICY};

/// OpenMetrics 1.0, section "Protocol Negotiation".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the site with the status page for people and the metrics for Prometheus.
pub fn pages<H: Handler>(documents: Documents<H>, timings: Timings) -> impl Site {
    Pages { documents, timings, written: Mutex::default() }
}

struct Pages<H> {
    documents: Documents<H>,
    timings: Timings,
    /// The last metrics, and the status snapshot that they were computed from.
    written: Mutex<(Weak<Snapshot>, Bytes)>,
}

impl<H: Handler> Site for Pages<H> {
    async fn answer(&self, path: &str) -> Answer {
        let answered = match path {
            "/" => Ok(Answer::document("text/html; charset=utf-8", PAGE)),
            "/status.json" => self.status().await,
            "/metrics" => self.metrics().await,
            _ => Ok(Answer::not_found()),
        };
        answered.unwrap_or_else(|Unavailable(reason)| {
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
        })
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let policy = HeaderValue::from_str(&POLICY).expect("the policy is plain text");
        vec![
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ]
    }
}

impl<H: Handler> Pages<H> {
    async fn status(&self) -> Result<Answer, Unavailable> {
        let snapshot = self.documents.status(RECENT).await?;
        Ok(Answer::document("application/json", snapshot.json()?))
    }

    async fn metrics(&self) -> Result<Answer, Unavailable> {
        let snapshot = self.documents.status(RECENT).await?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let of = Arc::downgrade(&snapshot);
        if !Weak::ptr_eq(&written.0, &of) {
            let text = metrics(snapshot.status(), &self.timings);
            *written = (of, text.into_bytes().into_boxed_slice().into());
        }
        Ok(Answer::document(OPEN_METRICS, written.1.clone()))
    }
}

#[cfg(test)]
mod tests;
