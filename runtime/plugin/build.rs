//! Builds the plugins that ship inside the binary, and compiles them to native code, so that neither the daemon nor
//! its start needs a compiler.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

use sha2::{Digest, Sha256};

#[path = "src/guests.rs"]
mod guests;
#[path = "../grant/src/section.rs"]
mod section;
#[path = "src/settings.rs"]
mod settings;

/// Their names, in order. Each is the crate `heddle-plugin-<name>`.
const EMBEDDED: [&str; 8] =
    ["alloc", "cni-conf", "docker-opts", "host-gw", "subnet-env", "udp", "vxlan", "vxlan-tun"];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../..");
    for input in ["plugins", "sdk/Cargo.toml", "sdk/src", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/guests.rs");
    println!("cargo::rerun-if-changed=../grant/src/section.rs");
    println!("cargo::rerun-if-changed=src/settings.rs");

    // The same for whatever features this crate is built with: target/guests, of target/release/build/NAME/out.
    let target_dir = out.ancestors().nth(4).expect("Cargo builds below its target directory");
    let target_dir = target_dir.join("guests");
    let crates = EMBEDDED.map(|name| format!("heddle-plugin-{name}"));
    let components = guests::build(&root, &target_dir, &crates.each_ref().map(String::as_str))
        .unwrap_or_else(|error| panic!("{error}"));

    // For any processor of the target's architecture, not only the one that this machine has.
    let mut settings = settings::settings();
    settings.target(&variable("TARGET")).expect("wasmtime knows the target");
    let engine = wasmtime::Engine::new(&settings).expect("wasmtime compiles for the target");

    // Code that another wasmtime or other settings made has to be told apart from ours in the cache.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    println!("cargo::rustc-env=HEDDLE_ENGINE={:016x}", hasher.finish());

    let mut table = String::from("[\n");
    for (name, built) in EMBEDDED.into_iter().zip(components) {
        let component = fs::read(&built)
            .unwrap_or_else(|error| panic!("{name} should have been built as {built:?}: {error}"));
        let native = engine
            .precompile_component(&component)
            .unwrap_or_else(|error| panic!("{name} does not compile: {error:?}"));
        let manifest = section::manifest(&component)
            .unwrap_or_else(|error| panic!("{built:?} is not a component: {error}"))
            .unwrap_or_else(|| panic!("{built:?} has no manifest"));
        let manifest = std::str::from_utf8(manifest).expect("a manifest is text");
        let digest: String =
            Sha256::digest(&component).iter().map(|byte| format!("{byte:02x}")).collect();
        let component_path = out.join(format!("{name}.wasm"));
        let native_path = out.join(format!("{name}.cwasm"));
        write(&component_path, &component);
        write(&native_path, &native);
        table += &format!(
            "Embedded {{
                name: {name:?},
                manifest: {manifest:?},
                digest: {digest:?},
                native: include_bytes!({native_path:?}),
                #[cfg(feature = \"compiler\")]
                component: include_bytes!({component_path:?}),
            }},\n"
        );
    }
    table += "]";
    write(&out.join("embedded.rs"), table.as_bytes());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("Cargo sets {name}: {error}"))
}

fn write(path: &Path, contents: &[u8]) {
    fs::write(path, contents).unwrap_or_else(|error| panic!("{path:?} cannot be written: {error}"));
}
