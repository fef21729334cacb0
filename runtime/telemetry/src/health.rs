//! `/healthz`, `/readyz` and `/packets`.

use std::fmt::Display;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// Answers probes.
///
/// `/healthz` answers 200 while the daemon runs; `/readyz` 200 when it is ready, else 503 and the reasons, a line each.
/// `/packets` has the counters of the packet path as a JSON object, or 404 where there is none.
///
/// `unmet` reads what does not hold, conditions with reasons; `warnings` what holds and still needs an operator, which
/// `/readyz` adds in lines of their own; `counters` the packet path's, names with numbers.
pub fn health<U, C, N>(
    unmet: impl Fn() -> U + Clone + Send + Sync + 'static,
    warnings: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
    counters: impl Fn() -> Option<C> + Clone + Send + Sync + 'static,
) -> Router
where
    U: IntoIterator<Item = (N, String)>,
    C: IntoIterator<Item = (&'static str, u64)>,
    N: Display,
{
    let ready = move || {
        let answer = readyz(unmet(), &warnings());
        async move { answer }
    };
    let packets = move || {
        let answer = packets(counters());
        async move { answer }
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/packets", get(packets))
}

fn readyz<N: Display>(
    unmet: impl IntoIterator<Item = (N, String)>,
    warnings: &[String],
) -> (StatusCode, String) {
    let reasons = unmet.into_iter().map(|(condition, reason)| format!("{condition}: {reason}\n"));
    let reasons: String = reasons.collect();
    let (status, text) = match reasons.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}\n"));
    (status, text + &warnings.collect::<String>())
}

fn packets<C>(counters: Option<C>) -> (StatusCode, String)
where
    C: IntoIterator<Item = (&'static str, u64)>,
{
    let Some(counters) = counters else {
        let text = "the backend has no packet path\n".to_owned();
        return (StatusCode::NOT_FOUND, text);
    };
    let members = counters.into_iter().map(|(name, count)| format!("\"{name}\":{count}"));
    (StatusCode::OK, format!("{{{}}}\n", members.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_a_json_object() {
        assert_eq!(packets(None::<[_; 0]>).0, StatusCode::NOT_FOUND);
        assert_eq!(
            packets(Some([("sent_packets", 3), ("sent_bytes", 0)])),
            (StatusCode::OK, "{\"sent_packets\":3,\"sent_bytes\":0}\n".into())
        );
    }

    #[test]
    fn the_answer_names_every_reason() {
        assert_eq!(readyz(Vec::<(&str, String)>::new(), &[]), (StatusCode::OK, "ok\n".into()));
        assert_eq!(
            readyz([("network config", "a".to_owned()), ("watch", "b".to_owned())], &[]),
            (StatusCode::SERVICE_UNAVAILABLE, "network config: a\nwatch: b\n".into())
        );
    }

    #[test]
    fn warnings_follow_readiness_and_do_not_change_it() {
        let warnings = ["10.0.0.0/8 overlaps 10.1.2.0/24".to_owned()];
        assert_eq!(
            readyz(Vec::<(&str, String)>::new(), &warnings),
            (StatusCode::OK, "ok\nwarning: 10.0.0.0/8 overlaps 10.1.2.0/24\n".into())
        );
        assert_eq!(
            readyz([("lease", "a".to_owned())], &warnings).1,
            "lease: a\nwarning: 10.0.0.0/8 overlaps 10.1.2.0/24\n"
        );
    }
}
