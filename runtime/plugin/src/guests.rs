//! Builds plugins that are crates of this workspace, and `heddle-compiler`. Used by the build
//! script and by tests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compilation target of plugins.
const TARGET: &str = "wasm32-wasip2";

/// Prefixes of environment variables that the outer Cargo sets and that must not reach the build of
/// the guests: flags for another target, the wrapper of clippy or of a coverage tool, the profile.
const DROPPED: [&str; 13] = [
    "CARGO",
    "RUSTC",
    "RUSTFLAGS",
    "RUSTDOC",
    "DEP_",
    "TARGET",
    "HOST",
    "OUT_DIR",
    "PROFILE",
    "OPT_LEVEL",
    "DEBUG",
    "NUM_JOBS",
    "CLIPPY",
];

/// Exceptions to [`DROPPED`]: Cargo's home directory, its network access and its terminal settings.
const KEPT: [&str; 5] =
    ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_TERM_"];

/// Builds these packages and returns their components, in order. Uses a separate target directory,
/// because the outer Cargo holds the lock of its own.
pub(crate) fn build(
    root: &Path,
    target_dir: &Path,
    packages: &[&str],
) -> Result<Vec<PathBuf>, String> {
    let chosen: Vec<_> = packages.iter().map(|package| format!("--package={package}")).collect();
    let chosen: Vec<_> = chosen.iter().map(String::as_str).collect();
    let built = cargo(root, target_dir, "guest", &chosen)?;
    let component = |package: &&str| {
        let name = package.trim_start_matches("heddle-").trim_start_matches("plugin-");
        built.join(format!("{}.wasm", name.replace('-', "_")))
    };
    Ok(packages.iter().map(component).collect())
}

/// Runs Cargo with the arguments `chosen`, which select packages. Returns the directory of the
/// components.
pub(crate) fn cargo(
    root: &Path,
    target_dir: &Path,
    profile: &str,
    chosen: &[&str],
) -> Result<PathBuf, String> {
    let mut arguments = vec!["--profile", profile, "--target", TARGET];
    arguments.extend(chosen);
    run_cargo(root, target_dir, &arguments)?;
    Ok(target_dir.join(TARGET).join(profile))
}

/// Runs `cargo build` with a separate target directory, because the outer Cargo holds the lock of
/// its own.
#[allow(clippy::disallowed_methods, reason = "Cargo builds the guests")]
pub(crate) fn run_cargo(root: &Path, target_dir: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        if starts(&DROPPED) && !starts(&KEPT) {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--locked", "--target-dir"]).arg(target_dir).args(arguments);
    let output = cargo.output().map_err(|error| format!("Cargo cannot be run: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("target may not be installed") {
            return Err(format!(
                "plugins are built for {TARGET}, which is not installed: run `rustup target add {TARGET}`\n\n{errors}"
            ));
        }
        return Err(format!("`cargo build {}` failed:\n\n{errors}", arguments.join(" ")));
    }
    Ok(())
}
