//! `/healthz` and `/readyz`.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
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

/// Serves until the daemon ends.
///
/// `/healthz` answers 200 while the daemon runs; `/readyz` 200 when it is ready, else 503 and the reasons, a line each.
///
/// # Errors
///
/// [`HealthError`], when the address is not to be had.
pub(crate) async fn serve(
    address: SocketAddr,
    readiness: watch::Receiver<Unmet>,
) -> Result<(), HealthError> {
    let listener =
        TcpListener::bind(address).await.map_err(|source| HealthError { address, source })?;
    let ready = move || {
        let answer = readyz(&readiness.borrow());
        async move { answer }
    };
    let router = Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Condition;

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
