//! Rules for every emitter.

use std::sync::Arc;

use heddle_core::address::Family;
use heddle_plugin::{
    Advertisements, CallError, Emitter, File, Plugin, PluginError, Reason, Setting, View,
};
use serde_json::json;

use crate::arbitrary::Arbitrary;
use crate::report::{Report, Rule};
use crate::{Scenario, Thoroughness};

/// Number of repetitions of the same call.
const REPEATS: usize = 3;

/// Name of a setting that no emitter has.
const UNKNOWN: &str = "no-such-setting";

pub(crate) async fn examine(
    plugin: &Plugin,
    settings: &[Setting],
    thoroughness: &Thoroughness,
) -> Result<Report, PluginError> {
    let emitter = plugin.emitter()?;
    let mut report = Report::default();
    for families in [&[Family::V4][..], &[Family::V6], &[Family::V4, Family::V6]] {
        for ip_masq in [false, true] {
            match view(families, ip_masq) {
                Ok(view) => examine_view(&emitter, &view, settings, &mut report).await,
                Err(error) => report.look(Rule::Works, false, || error.to_string()),
            }
        }
    }
    if let Ok(view) = view(&[Family::V4], true) {
        robust(&emitter, &view, settings, thoroughness, &mut report).await;
    }
    Ok(report)
}

/// Returns an emitter's view of a node in an ordinary situation.
fn view(families: &[Family], ip_masq: bool) -> Result<View, crate::InvalidScenario> {
    let scenario = Scenario::ordinary(families, &json!({ "Type": "vxlan" }))?;
    let (key, node) = &scenario.node;
    let site = scenario.site(node);
    let data = |_| r#"{"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:de"}"#.to_owned();
    let backend_data = scenario.config.networks.map(data);
    let advertised = Advertisements { backend_type: Some("vxlan".to_owned()), backend_data };
    let lease = advertised.lease(*key, node, None);
    Ok(View { site: Arc::new(site.with_lease(lease)), mtu: 1430, ip_masq })
}

async fn examine_view(emitter: &Emitter, view: &View, settings: &[Setting], report: &mut Report) {
    let ask = || format!("emit for {} with {}", view.site.lease.key, list(settings));
    let Some(first) = report.sound(ask, emitter.emit(view, settings).await) else { return };
    match &first {
        Ok(files) => report.look(Rule::Works, !files.is_empty(), || format!("{}: no files", ask())),
        Err(reason) => report.look(Rule::Works, false, || format!("{}: {reason}", ask())),
    }
    for _ in 0..REPEATS {
        let again = emitter.emit(view, settings).await.map_err(|error| error.reason);
        report.look(Rule::Pure, again == first, || format!("{}: other files each time", ask()));
    }
}

/// Tries malformed settings.
async fn robust(
    emitter: &Emitter,
    view: &View,
    settings: &[Setting],
    thoroughness: &Thoroughness,
    report: &mut Report,
) {
    let mut unknown = settings.to_vec();
    unknown.push(Setting { name: UNKNOWN.to_owned(), value: String::new() });
    let refused = emit(emitter, view, &unknown, report).await;
    let named = matches!(&refused, Some(Err(Reason::Emitter(text))) if text.contains(UNKNOWN));
    report.look(Rule::Robust, named, || {
        format!(
            "it takes a setting `{UNKNOWN}`, or does not name it: expected an error with its name"
        )
    });
    let mut arbitrary = Arbitrary::new(thoroughness.seed);
    let mut names = vec!["path".to_owned()];
    names.extend(settings.iter().map(|setting| setting.name.clone()));
    for _ in 0..thoroughness.rounds {
        let mut disturbed = settings.to_vec();
        let (name, value) = arbitrary.setting(&names);
        disturbed.push(Setting { name, value });
        let answer = emitter.emit(view, &disturbed).await;
        // Operators are trusted: a refused path that comes from a setting is not the plugin's
        // fault.
        if !matches!(&answer, Err(CallError { reason: Reason::Refused(_), .. })) {
            report.sound(|| format!("emit with {}", list(&disturbed)), answer);
        }
    }
}

async fn emit(
    emitter: &Emitter,
    view: &View,
    settings: &[Setting],
    report: &mut Report,
) -> Option<Result<Vec<File>, Reason>> {
    let answer = emitter.emit(view, settings).await;
    report.sound(|| format!("emit with {}", list(settings)), answer)
}

fn list(settings: &[Setting]) -> String {
    let each = settings.iter().map(|setting| format!("{}={:?}", setting.name, setting.value));
    match each.collect::<Vec<_>>() {
        each if each.is_empty() => "no settings".to_owned(),
        each => each.join(", "),
    }
}
