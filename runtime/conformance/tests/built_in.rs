//! The built-in plugins conform to the rules.

use std::path::PathBuf;

use heddle_conformance::{Settings, Thoroughness, examine};
use heddle_plugin::{Catalogue, Plugin, PluginSource, Role, embedded_component};

/// Returns the path of the compiler that was built with this test. Cargo puts tests in a directory
/// below that of the binaries.
fn compiler() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("heddle-compiler")
}

fn catalogue() -> Catalogue {
    Catalogue::new(Vec::new(), Some(compiler()), "/nonexistent/cache".into()).unwrap()
}

/// Opens a built-in plugin from its component.
fn plugin(name: &str) -> Plugin {
    let component = embedded_component(name).unwrap();
    catalogue().open_component(PluginSource::Embedded, component).unwrap()
}

#[tokio::test]
async fn every_built_in_plugin_conforms() {
    let catalogue = catalogue();
    let names: Vec<_> = catalogue.list().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    for name in names {
        let plugin = plugin(&name);
        let report = examine(&plugin, &Settings::least(&name), &Thoroughness::default()).await;
        let report = report.unwrap();
        assert!(report.passed(), "{name}: {report:#?}");
        let looks: u64 = report.rules().map(|(_, times, _)| times).sum();
        let least = if plugin.manifest().world.role() == Role::Backend { 1000 } else { 200 };
        assert!(looks > least, "{name} was looked at {looks} times");
    }
}
