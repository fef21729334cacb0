//! For each rule, a plugin that violates it, which the examination must find.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use heddle_conformance::{Report, Rule, Settings, Thoroughness, examine};
use heddle_plugin::{Catalogue, PluginSource};
use serde_json::json;

#[path = "../../plugin/src/guests.rs"]
mod guests;

/// Returns the component of `tests/broken`, building it on first use.
fn component() -> &'static (PathBuf, Vec<u8>) {
    static COMPONENT: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let built = guests::build(&root, &root.join("target/guests"), &["heddle-broken"]).unwrap();
        (built[0].clone(), fs::read(&built[0]).unwrap())
    })
}

/// Returns the path of the compiler that was built with this test. Cargo puts tests in a directory
/// below that of the binaries.
fn compiler() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("heddle-compiler")
}

async fn report(fault: &str) -> Report {
    let catalogue =
        Catalogue::new(Vec::new(), Some(compiler()), "/nonexistent/cache".into()).unwrap();
    let (path, bytes) = component();
    let plugin = catalogue.open_component(PluginSource::File(path.clone()), bytes).unwrap();
    let settings = Settings {
        backend: json!({ "Type": "broken", "Fault": fault }),
        ..Settings::least("broken")
    };
    let thoroughness = Thoroughness { rounds: 60, ..Thoroughness::default() };
    examine(&plugin, &settings, &thoroughness).await.unwrap()
}

#[tokio::test]
async fn plugin_without_fault_has_no_findings() {
    let report = report("").await;
    assert!(report.passed(), "{report:#?}");
}

#[tokio::test]
async fn every_fault_is_found_under_its_rule() {
    for (fault, rule, says) in [
        ("peer", Rule::Works, "there is no plan for its own peer"),
        ("mtu", Rule::Works, "an MTU of"),
        ("clock", Rule::Pure, "then"),
        ("memory", Rule::Order, "depends on who was asked about before"),
        ("same", Rule::Apart, "which is another's"),
        ("others", Rule::Others, "expected `other-backend`"),
        ("trap", Rule::Robust, "never saw a VNI"),
        ("key", Rule::Works, "it plans for none of"),
        ("data", Rule::Robust, "never saw any data"),
        ("default", Rule::Granted, "route 0.0.0.0/0"),
        ("port", Rule::Granted, "UDP port 53"),
        ("sysctl", Rule::Granted, "forwarding"),
        ("astray", Rule::Steers, "goes to peer"),
        ("nowhere", Rule::Steers, "no packet goes to any peer"),
        ("range", Rule::Granted, "peer 1000"),
        ("bits", Rule::Transforms, "are not what they were"),
        ("long", Rule::Granted, "expected at most"),
        ("junk", Rule::Robust, "where is the head?"),
    ] {
        let report = report(fault).await;
        let found = report.rules().any(|(found, _, findings)| {
            found == rule && findings.iter().any(|finding| finding.text.contains(says))
        });
        assert!(found, "{fault}: {rule} with {says:?} in {report:#?}");
    }
}
