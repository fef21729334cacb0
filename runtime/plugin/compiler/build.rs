//! Passes the compilation target to the program.

#![expect(clippy::disallowed_macros, reason = "Cargo reads standard output")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!(
        "cargo::rustc-env=HEDDLE_TARGET={}",
        std::env::var("TARGET").expect("Cargo sets TARGET")
    );
}
