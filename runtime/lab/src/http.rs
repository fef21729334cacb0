//! Sends requests to a web server from inside a namespace.

use std::time::Duration;

use crate::{Error, Namespace};

/// Fetches a page and returns its status and body, whatever the status.
pub(crate) fn get(namespace: &Namespace, url: &str) -> Result<(u16, String), Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(2)))
        .build()
        .into();
    let ask = || {
        let mut response = agent.get(url).call()?;
        let body = response.body_mut().read_to_string()?;
        Ok((response.status().as_u16(), body))
    };
    namespace.enter(ask)?.map_err(|error: ureq::Error| Error::Http {
        request: format!("GET {url} in {}", namespace.name()),
        problem: error.to_string(),
    })
}
