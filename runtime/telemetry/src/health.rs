//! The endpoints `/healthz`, `/readyz` and `/packets`.

use std::fmt::Display;
use std::marker::PhantomData;

use heddle_http::{Answer, Site, StatusCode};

/// Returns the site that answers health probes.
///
/// `/healthz` answers 200 while the daemon runs. `/readyz` answers 200 when the daemon is ready,
/// else 503 with the reasons, one per line. `/packets` returns the counters of the packet path as a
/// JSON object, or 404 if there is none.
///
/// `unmet` returns the unmet conditions with the reasons. `warnings` returns problems that do not
/// affect readiness but need an operator; `/readyz` lists them on lines of their own. `counters`
/// returns the names and values of the packet path's counters.
pub fn health<U, W, C, N>(
    unmet: impl Fn() -> U + Send + Sync + 'static,
    warnings: impl Fn() -> W + Send + Sync + 'static,
    counters: impl Fn() -> Option<C> + Send + Sync + 'static,
) -> impl Site
where
    U: IntoIterator<Item = (N, String)> + 'static,
    W: Future<Output = Vec<String>> + Send + 'static,
    C: IntoIterator<Item = (&'static str, u64)> + 'static,
    N: Display + 'static,
{
    Probes { unmet, warnings, counters, of: PhantomData }
}

/// The functions that supply the answers, and the types that they return.
struct Probes<R, Q, P, U, C> {
    unmet: R,
    warnings: Q,
    counters: P,
    of: PhantomData<fn() -> (U, C)>,
}

impl<R, Q, P, U, W, C, N> Site for Probes<R, Q, P, U, C>
where
    R: Fn() -> U + Send + Sync + 'static,
    Q: Fn() -> W + Send + Sync + 'static,
    P: Fn() -> Option<C> + Send + Sync + 'static,
    W: Future<Output = Vec<String>> + Send + 'static,
    U: IntoIterator<Item = (N, String)> + 'static,
    C: IntoIterator<Item = (&'static str, u64)> + 'static,
    N: Display + 'static,
{
    async fn answer(&self, path: &str) -> Answer {
        match path {
            "/healthz" => Answer::text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let warnings = (self.warnings)().await;
                readyz((self.unmet)(), &warnings)
            }
            "/packets" => packets((self.counters)()),
            _ => Answer::not_found(),
        }
    }
}

fn readyz<N: Display>(unmet: impl IntoIterator<Item = (N, String)>, warnings: &[String]) -> Answer {
    let reasons = unmet.into_iter().map(|(condition, reason)| format!("{condition}: {reason}\n"));
    let reasons: String = reasons.collect();
    let (status, text) = match reasons.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}\n"));
    Answer::text(status, text + &warnings.collect::<String>())
}

fn packets<C>(counters: Option<C>) -> Answer
where
    C: IntoIterator<Item = (&'static str, u64)>,
{
    let Some(counters) = counters else {
        return Answer::text(StatusCode::NOT_FOUND, "the backend has no packet path\n");
    };
    let members = counters.into_iter().map(|(name, count)| format!("\"{name}\":{count}"));
    let object = format!("{{{}}}\n", members.collect::<Vec<_>>().join(","));
    Answer::text(StatusCode::OK, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_counters_are_a_json_object() {
        assert_eq!(packets(None::<[_; 0]>).status(), StatusCode::NOT_FOUND);
        let text = "{\"sent_packets\":3,\"sent_bytes\":0}\n";
        assert_eq!(
            packets(Some([("sent_packets", 3), ("sent_bytes", 0)])),
            Answer::text(StatusCode::OK, text)
        );
    }

    #[test]
    fn readyz_names_every_unmet_condition() {
        let answer = |status, text: &'static str| Answer::text(status, text);
        assert_eq!(readyz(Vec::<(&str, String)>::new(), &[]), answer(StatusCode::OK, "ok\n"));
        assert_eq!(
            readyz([("network config", "a".to_owned()), ("watch", "b".to_owned())], &[]),
            answer(StatusCode::SERVICE_UNAVAILABLE, "network config: a\nwatch: b\n")
        );
    }

    #[test]
    fn warnings_follow_readiness_and_do_not_change_it() {
        let warnings = ["10.0.0.0/8 overlaps 10.1.2.0/24".to_owned()];
        assert_eq!(
            readyz(Vec::<(&str, String)>::new(), &warnings),
            Answer::text(StatusCode::OK, "ok\nwarning: 10.0.0.0/8 overlaps 10.1.2.0/24\n")
        );
        let text = "lease: a\nwarning: 10.0.0.0/8 overlaps 10.1.2.0/24\n";
        assert_eq!(
            readyz([("lease", "a".to_owned())], &warnings),
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, text)
        );
    }
}
