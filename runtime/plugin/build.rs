//! Builds the plugins that ship inside the binary, and has `heddle-compiler` compile them to native
//! code. So the daemon contains no compiler, and needs none to start.
//!
//! Also builds `heddle-compiler`, in a Cargo call of its own: in one call with the programs that
//! use it, Cargo would give wasmtime the union of all features, and every program a compiler. That
//! call has one target directory for all features and targets of this crate, for clippy and for
//! tests, so Cranelift is compiled once for each profile.

#![expect(clippy::disallowed_macros, reason = "Cargo reads standard output")]
#![allow(clippy::disallowed_methods, reason = "runs on the machine that builds")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

#[path = "src/guests.rs"]
mod guests;
#[path = "../grant/src/section.rs"]
mod section;

/// The crate and program that contains Cranelift.
const COMPILER: &str = "heddle-compiler";

/// Names of the embedded plugins, sorted. Each is the crate `heddle-plugin-<name>`.
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
    println!("cargo::rerun-if-changed={}", root.join("runtime/plugin/compiler").display());
    println!("cargo::rerun-if-changed={}", root.join("runtime/files/src").display());

    // OUT_DIR is target/release/build/NAME/out, or target/TARGET/release/build/NAME/out.
    let profile_dir = out.ancestors().nth(3).expect("Cargo builds below its target directory");
    let target = variable("TARGET");
    let nested = match profile_dir.parent() {
        Some(dir) if dir.ends_with(&target) => dir.with_file_name("guests"),
        Some(dir) => dir.join("guests"),
        None => panic!("Cargo builds below its target directory"),
    };
    let crates = EMBEDDED.map(|name| format!("heddle-plugin-{name}"));
    let components = guests::build(&root, &nested, &crates.each_ref().map(String::as_str))
        .unwrap_or_else(|error| panic!("{error}"));
    let compiler = build_compiler(&root, &nested);
    if target == variable("HOST") {
        // Beside the binaries that Cargo is building, where they search for it.
        replace(&compiler, &profile_dir.join(COMPILER));
    }
    let engine = run(Command::new(&compiler).args(["engine", "--target", &target]));
    println!("cargo::rustc-env=HEDDLE_ENGINE={}", engine.trim());

    let (mut table, mut component_table) = (String::from("[\n"), String::from("[\n"));
    for (name, built) in EMBEDDED.into_iter().zip(components) {
        let component = fs::read(&built)
            .unwrap_or_else(|error| panic!("{name} should have been built as {built:?}: {error}"));
        let manifest = section::manifest(&component)
            .unwrap_or_else(|error| panic!("{built:?} is not a component: {error}"))
            .unwrap_or_else(|| panic!("{built:?} has no manifest"));
        let manifest = std::str::from_utf8(manifest).expect("a manifest is text");
        let digest: String =
            Sha256::digest(&component).iter().map(|byte| format!("{byte:02x}")).collect();
        let component_path = out.join(format!("{name}.wasm"));
        let native_path = out.join(format!("{name}.cwasm"));
        write(&component_path, &component);
        // For any processor of the target's architecture, not only this machine's.
        run(Command::new(&compiler)
            .args(["compile", "--target", &target])
            .args([&component_path, &native_path]));
        table += &format!(
            "Embedded {{
                name: {name:?},
                manifest: {manifest:?},
                digest: {digest:?},
                native: include_bytes!({native_path:?}),
            }},\n"
        );
        component_table += &format!("include_bytes!({component_path:?}),\n");
    }
    write(&out.join("embedded.rs"), format!("{table}]").as_bytes());
    write(&out.join("components.rs"), format!("{component_table}]").as_bytes());
}

/// Builds `heddle-compiler` and returns its path. For the profile `demo`, the compiler is not
/// optimised: that takes a fraction of the time, and its output is the same. Tests compile dozens
/// of plugins, ten times as fast with one that is, and share it with a release build.
fn build_compiler(root: &Path, target_dir: &Path) -> PathBuf {
    // Cargo says `debug` for `dev` and what inherits it.
    let is_demo = variable("OPT_LEVEL") == "0" && variable("PROFILE") == "release";
    let profile = if is_demo { "quick-compiler" } else { "compiler" };
    guests::run_cargo(root, target_dir, &["--profile", profile, "--package", COMPILER])
        .unwrap_or_else(|error| panic!("{error}"));
    target_dir.join(profile).join(COMPILER)
}

/// Runs a command and returns its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed ({}): {errors}", output.status);
    String::from_utf8(output.stdout).expect("the compiler prints text")
}

/// Replaces the file at `place` by a copy of a program. A running program may be replaced, because
/// the copy is another file.
fn replace(program: &Path, place: &Path) {
    let copy = place.with_extension("new");
    let replaced = fs::copy(program, &copy).and_then(|_| fs::rename(&copy, place));
    replaced.unwrap_or_else(|error| panic!("{place:?} cannot be written: {error}"));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("Cargo sets {name}: {error}"))
}

fn write(path: &Path, contents: &[u8]) {
    fs::write(path, contents).unwrap_or_else(|error| panic!("{path:?} cannot be written: {error}"));
}
