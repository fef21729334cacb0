//! An emitter's files in a scenario.

use std::fmt::Write;
use std::sync::Arc;

use heddle_core::family::PerFamily;
use heddle_plugin::{Advertisements, CallError, Emitter, File, Setting, View};

use crate::Scenario;

/// An emitter's result in one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(pub Result<Vec<File>, CallError>);

impl Files {
    /// Calls an emitter, on a node whose lease is for the config's backend.
    pub async fn of(emitter: &Emitter, scenario: &Scenario, settings: &[Setting]) -> Self {
        let Scenario { config, node: (key, node), mtu, ip_masq, .. } = scenario;
        let advertised = Advertisements {
            backend_type: Some(config.backend.kind.clone()),
            backend_data: PerFamily::NONE,
        };
        let lease = advertised.lease(*key, node, None);
        let site = Arc::new(scenario.site(node).with_lease(lease));
        Self(emitter.emit(&View { site, mtu: *mtu, ip_masq: *ip_masq }, settings).await)
    }

    /// Formats the files as text, or the error after `!`. The SDK's test kit gives the same text
    /// for a plugin that runs natively.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match &self.0 {
            Err(error) => {
                let _ = writeln!(text, "! {}", error.reason);
            }
            Ok(files) => {
                for File { path, mode, contents } in files {
                    let _ = writeln!(text, "file {} mode {mode:o}", path.display());
                    for line in String::from_utf8_lossy(contents).lines() {
                        let _ = writeln!(text, "  {line}");
                    }
                }
            }
        }
        text
    }
}
