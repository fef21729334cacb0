//! Builds the plugins that ship inside the binary, and compiles them to native code, so that neither the daemon nor
//! its start needs a compiler.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

#[path = "src/section.rs"]
mod section;
#[path = "src/settings.rs"]
mod settings;

/// Their names, and the crates they are built from.
const EMBEDDED: [(&str, &str); 2] =
    [("subnet-env", "heddle-plugin-subnet-env"), ("vxlan", "heddle-plugin-vxlan")];

const GUEST_TARGET: &str = "wasm32-wasip2";

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../..");
    for input in ["plugins", "sdk", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/section.rs");
    println!("cargo::rerun-if-changed=src/settings.rs");

    let guests = out.join("guests");
    build_guests(&root, &guests);

    // For any processor of the target's architecture, not only the one that this machine has.
    let mut settings = settings::settings();
    settings.target(&variable("TARGET")).expect("wasmtime knows the target");
    let engine = wasmtime::Engine::new(&settings).expect("wasmtime compiles for the target");

    // Code that another wasmtime or other settings made has to be told apart from ours in the cache.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    println!("cargo::rustc-env=HEDDLE_ENGINE={:016x}", hasher.finish());

    let mut table = String::from("[\n");
    for (name, krate) in EMBEDDED {
        let file = krate.trim_start_matches("heddle-plugin-").replace('-', "_");
        let built = guests.join(GUEST_TARGET).join("guest").join(format!("{file}.wasm"));
        let component = fs::read(&built)
            .unwrap_or_else(|error| panic!("{krate} should have built {built:?}: {error}"));
        let native = engine
            .precompile_component(&component)
            .unwrap_or_else(|error| panic!("{krate} does not compile: {error:?}"));
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

/// Runs Cargo for the plugins, in a target directory of their own: the outer Cargo holds the lock of the other one.
fn build_guests(root: &Path, target_dir: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(root);
    // What the outer build was told is not for the guests: flags for another target, clippy's or a coverage tool's
    // wrapper, its profile. What says where Cargo lives and how it reaches the network stays.
    for (name, _) in env::vars() {
        let kept = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_TERM_"];
        let ours = name.starts_with("CARGO")
            || name.starts_with("RUSTC")
            || name.starts_with("RUSTFLAGS")
            || name.starts_with("RUSTDOC")
            || name.starts_with("DEP_")
            || matches!(
                name.as_str(),
                "TARGET" | "HOST" | "OUT_DIR" | "PROFILE" | "OPT_LEVEL" | "DEBUG" | "NUM_JOBS"
            );
        if ours && !kept.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--locked", "--profile", "guest", "--target", GUEST_TARGET]);
    cargo.arg("--target-dir").arg(target_dir);
    for (_, krate) in EMBEDDED {
        cargo.args(["--package", krate]);
    }
    let output = cargo.output().expect("Cargo, which runs this, can be run");
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("target may not be installed") {
            panic!(
                "the plugins are built for {GUEST_TARGET}, which is not installed: \
                 run `rustup target add {GUEST_TARGET}`\n\n{errors}"
            );
        }
        panic!("building the plugins failed:\n\n{errors}");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("Cargo sets {name}: {error}"))
}

fn write(path: &Path, contents: &[u8]) {
    fs::write(path, contents).unwrap_or_else(|error| panic!("{path:?} cannot be written: {error}"));
}
