//! `/healthz`, `/readyz` and `/packets`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use heddle_packet::Counters;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::readiness::Unmet;

/// The health server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (--healthz-ip, --healthz-port): {source}")]
pub(crate) struct HealthError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Reads the counters of the packet path. Empty as long as there is none.
pub(crate) type PacketCounters = Arc<OnceLock<Box<dyn Fn() -> Option<Counters> + Send + Sync>>>;

/// Serves until the daemon ends.
///
/// `/healthz` answers 200 while the daemon runs; `/readyz` 200 when it is ready, else 503 and the reasons, a line each.
/// `/packets` has the counters of the packet path as a JSON object, or 404 where the backend has none.
///
/// # Errors
///
/// [`HealthError`], when the address is not to be had.
pub(crate) async fn serve(
    address: SocketAddr,
    readiness: watch::Receiver<Unmet>,
    counters: PacketCounters,
) -> Result<(), HealthError> {
    let listener =
        TcpListener::bind(address).await.map_err(|source| HealthError { address, source })?;
    let ready = move || {
        let answer = readyz(&readiness.borrow());
        async move { answer }
    };
    let packets = move || {
        let answer = packets(counters.get().and_then(|read| read()));
        async move { answer }
    };
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/packets", get(packets));
    tokio::spawn(async move {
        // axum retries failed accepts by itself and never returns.
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the health server ended: {error}");
        }
    });
    Ok(())
}

fn readyz(unmet: &Unmet) -> (StatusCode, String) {
    if unmet.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let reasons = unmet.iter().map(|(condition, reason)| format!("{condition}: {reason}\n"));
    (StatusCode::SERVICE_UNAVAILABLE, reasons.collect())
}

fn packets(counters: Option<Counters>) -> (StatusCode, String) {
    let Some(counters) = counters else {
        let text = "the backend has no packet path\n".to_owned();
        return (StatusCode::NOT_FOUND, text);
    };
    let members = counters.iter().map(|(name, count)| format!("\"{name}\":{count}"));
    (StatusCode::OK, format!("{{{}}}\n", members.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Condition;

    #[test]
    fn the_counters_are_a_json_object() {
        assert_eq!(packets(None).0, StatusCode::NOT_FOUND);
        let counters = Counters { sent_packets: 3, ..Counters::default() };
        let (status, text) = packets(Some(counters));
        assert_eq!(status, StatusCode::OK);
        assert!(text.starts_with(r#"{"sent_packets":3,"sent_bytes":0,"#), "{text}");
        assert!(text.ends_with("}\n"), "{text}");
    }

    #[test]
    fn the_answer_names_every_reason() {
        assert_eq!(readyz(&Unmet::new()), (StatusCode::OK, "ok\n".into()));
        let unmet = [(Condition::Watch, "b".to_owned()), (Condition::Config, "a".to_owned())];
        assert_eq!(
            readyz(&unmet.into()),
            (StatusCode::SERVICE_UNAVAILABLE, "network config: a\nwatch: b\n".into())
        );
    }
}
