//! Helpers for the end-to-end tests: a [`Cluster`] of real daemons and a real etcd, and [`Peer`]s
//! that exist only as leases. Helpers for the benchmarks: [`measurement`]s.
//!
//! Helpers panic instead of returning errors: any error fails the test, and a panic shows the logs
//! of the running daemons.

#![forbid(unsafe_code)]

mod authority;
mod browser;
mod cluster;
pub mod crowd;
mod flow;
mod flows;
#[path = "../../runtime/plugin/src/guests.rs"]
mod guests;
pub mod guide;
pub mod measurement;
mod memory;
mod package;
mod packet;
mod partition;
mod peer;
mod plain;
mod podman;
mod random;
mod readiness;
mod recovery;
mod snapshot;
pub mod surfaces;
mod trio;
pub mod victim;
pub mod wording;

pub use authority::Authority;
pub use browser::Browser;
pub use cluster::{Cluster, Node, Overlay, PROTOCOL};
pub use flow::Flow;
pub use flows::Flows;
pub use memory::MemoryLimit;
pub use package::{NEWER, image, newer_package, package};
pub use packet::{Fragment, HOP_LIMIT, Packet, net_unreachable, time_exceeded};
pub use partition::{Loss, cut, heal};
pub use peer::{NETWORK_FOR_PEERS, Peer, by_hand};
pub use plain::{PlainPeer, UDP_PORT};
pub use podman::Podman;
pub use random::Random;
pub use readiness::{wait_ready, wait_unready};
pub use recovery::Recovery;
pub use recovery::recovered;
pub use snapshot::Snapshot;
pub use trio::Trio;
pub use victim::Victim;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use heddle_lab::{Error, Host, Namespace};
use serde_json::Value;
use wasm_encoder::{ComponentSection, ComponentSectionId, InstanceSection, RawSection};
use wasmparser::{Parser, Payload};

/// Time limit for the repair of any drift.
pub const HEALED: Duration = Duration::from_secs(1);

/// Time limit for a change in etcd to take effect everywhere on a loaded machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Returns the daemon under test.
pub fn heddled() -> PathBuf {
    binary("heddled")
}

/// Returns the command-line tool under test.
pub fn heddle() -> PathBuf {
    binary("heddle")
}

/// Returns the output of `heddle status --json` for a host's daemon.
pub fn status(host: &Host) -> Value {
    let mut command = Command::new(heddle());
    command.args(["status", "--json", "--socket"]).arg(host.control_socket());
    serde_json::from_str(&host.namespace().run(command).unwrap()).unwrap()
}

/// Returns the packet path without a daemon, an example of `runtime/packet`: `make bench` puts it
/// beside the binaries.
pub fn carry() -> PathBuf {
    binary("carry")
}

/// Returns a binary from the directory where `make build` leaves them, or from `HEDDLE_BIN_DIR`.
/// Cargo's own are not used, because those it builds along with tests have the tests' features.
fn binary(name: &str) -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist");
    let directory = std::env::var_os("HEDDLE_BIN_DIR").map_or_else(built, PathBuf::from);
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `make build` (for a benchmark `make bench`), or set HEDDLE_BIN_DIR",
        path.display()
    );
    path
}

/// Returns the component of `tests/rogue`, building it on first use.
pub fn rogue() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| guest("heddle-rogue"))
}

/// Returns the component of `tests/rogue-udp`, building it on first use.
pub fn rogue_udp() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| guest("heddle-rogue-udp"))
}

fn guest(package: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = guests::build(&root, &root.join("target/guests"), &[package]);
    built.unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// Returns the component of one of the examples in `tests/hostile`, building them on first use.
pub fn hostile(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let what = ["--package=heddle-hostile", "--examples"];
        let built = guests::cargo(&root, &root.join("target/guests"), "hostile", &what);
        built.unwrap_or_else(|error| panic!("{error}")).join("examples")
    });
    directory.join(format!("{}.wasm", name.replace('-', "_")))
}

/// Adds instances of a module to a component, `count` of them, which are instantiated with it.
pub fn graft(component: &[u8], module: &str, count: u32) -> Vec<u8> {
    let module = wat::parse_str(module).unwrap();
    let mut modules = 0;
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => {
                modules += u32::from(depth == 0);
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    let mut instances = InstanceSection::new();
    for _ in 0..count {
        instances.instantiate::<_, &str>(modules, []);
    }
    let mut more = component.to_vec();
    RawSection { id: ComponentSectionId::CoreModule as u8, data: &module }
        .append_to_component(&mut more);
    instances.append_to_component(&mut more);
    more
}

/// Returns the output of `ping`, answered or not.
pub fn ping(namespace: &Namespace, arguments: &str) -> String {
    let mut command = Command::new("ping");
    command.arg("-n").args(arguments.split_whitespace());
    match namespace.run(command) {
        Ok(printed) | Err(Error::Failed { stderr: printed, .. }) => printed,
        Err(error) => panic!("{error}"),
    }
}
