//! All end-to-end tests, in one program: tests that wait overlap with tests that work.

mod addresses;
mod backends;
mod churn;
mod clients;
mod config;
mod demo;
mod doctor;
mod drift;
mod emitters;
mod faults;
mod flags;
mod flood;
mod foreign_files;
mod guide;
mod health;
mod host_gw;
mod host_network;
mod hostile;
mod hostile_plugins;
mod languages;
mod leases;
mod memory;
mod metrics;
mod operator;
mod ownership;
mod package;
mod packet_plugin;
mod plugin_run;
mod plugins;
mod podman;
mod probing;
mod record;
mod restart;
mod restricted;
mod rules;
mod scale;
mod security;
mod signals;
mod status_page;
mod surfaces;
mod switching;
mod transform;
mod tutorial;
mod udp;
mod v2;
mod vxlan;
mod wire;

/// Asserts that all files are listed above: an unlisted file would silently not be run.
#[test]
fn every_file_is_listed_as_module() {
    let source = include_str!("main.rs");
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let has_its_own_program = ["main", "boot_storm", "siege"].contains(&name);
        assert!(
            has_its_own_program || source.contains(&format!("\nmod {name};\n")),
            "tests/tests/main.rs lacks `mod {name};`"
        );
    }
}
