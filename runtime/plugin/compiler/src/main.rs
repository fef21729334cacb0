//! `heddle-compiler`: compiles a component to native code.
//!
//! `heddled` and `heddle` run it as a child process with limits, see
//! `runtime/plugin/src/compiler.rs`; the build script of `runtime/plugin` runs it for the built-in
//! plugins. It is the only program with Cranelift. Because Cranelift processes untrusted input, the
//! program contains nothing else.

#![forbid(unsafe_code)]

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wasmtime::Engine;

#[path = "../../src/settings.rs"]
mod settings;

const USAGE: &str = "\
Compiles plugins to native code, for heddled and heddle, which run this program themselves.

Usage: heddle-compiler compile [--engine ID] [--target TRIPLE] IN OUT
       heddle-compiler engine [--target TRIPLE]

compile   Compiles the component IN and writes the native code to OUT.
engine    Prints the id of the engine that can load the code.

--engine ID      Refuse to compile unless this is the engine's id.
--target TRIPLE  Compile for any processor of this target instead of this machine's own.
";

/// Size limit of a component in bytes, the same as in `heddle-plugin`.
const MAX_COMPONENT: u64 = 64 << 20;

/// Compilation target of this program, and of the daemon and the tool beside it.
const TARGET: &str = env!("HEDDLE_TARGET");

/// An empty component: magic number and version.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

/// Parsed command line.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Compile { engine: Option<String>, target: Option<String>, input: PathBuf, output: PathBuf },
    Engine { target: Option<String> },
    Help,
    Version,
}

/// Exits with 1 after a failure, and with 2 after a usage error.
fn main() -> ExitCode {
    let done = match parse(env::args_os().skip(1)) {
        Ok(Command::Compile { engine, target, input, output }) => {
            compile(engine.as_deref(), target.as_deref(), &input, &output)
        }
        Ok(Command::Engine { target }) => {
            engine_id(target.as_deref().unwrap_or(TARGET)).and_then(|id| print(&format!("{id}\n")))
        }
        Ok(Command::Help) => print(USAGE),
        Ok(Command::Version) => print(concat!("heddle-compiler ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(reason) => {
            complain(&format!("{reason}; see heddle-compiler --help"));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            complain(&printable(&reason));
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let (mut engine, mut target, mut rest) = (None, None, Vec::new());
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let option = match argument.to_str() {
            Some("-h" | "--help") => return Ok(Command::Help),
            Some("-V" | "--version") => return Ok(Command::Version),
            Some("--engine") => &mut engine,
            Some("--target") => &mut target,
            Some(other) if other.starts_with('-') => return Err(format!("unknown option {other}")),
            _ => {
                rest.push(argument);
                continue;
            }
        };
        let value = arguments.next().and_then(|value| value.into_string().ok());
        *option = Some(value.ok_or_else(|| format!("{} needs a value", argument.display()))?);
    }
    let mut rest = rest.into_iter();
    let command = rest.next().ok_or("expected a command: compile or engine")?;
    let command = match (command.to_str(), rest.next(), rest.next()) {
        (Some("compile"), Some(input), Some(output)) => {
            Command::Compile { engine, target, input: input.into(), output: output.into() }
        }
        (Some("engine"), None, None) if engine.is_none() => Command::Engine { target },
        (Some("compile"), ..) => return Err("compile: expected IN and OUT".to_owned()),
        (Some("engine"), ..) => return Err("engine: expected --target alone".to_owned()),
        _ => return Err(format!("unknown command {}", command.display())),
    };
    match rest.next() {
        None => Ok(command),
        Some(extra) => Err(format!("unexpected argument {}", extra.display())),
    }
}

fn compile(
    expected: Option<&str>,
    target: Option<&str>,
    input: &Path,
    output: &Path,
) -> Result<(), String> {
    if let Some(expected) = expected {
        let id = engine_id(target.unwrap_or(TARGET))?;
        if id != expected {
            return Err(format!(
                "it belongs to another build (engine {id}, expected {expected}); \
                 install heddled, heddle and heddle-compiler from the same package"
            ));
        }
    }
    let component = heddle_files::read(input, MAX_COMPONENT).map_err(|error| error.to_string())?;
    let native = engine(target)?
        .precompile_component(&component)
        .map_err(|error| format!("{}: {error:#}", input.display()))?;
    fs::write(output, native).map_err(|error| format!("cannot write {}: {error}", output.display()))
}

/// Returns an engine that compiles for any processor of `target`, or for this machine's own.
fn engine(target: Option<&str>) -> Result<Engine, String> {
    let mut settings = settings::settings();
    if let Some(target) = target {
        settings.target(target).map_err(|error| format!("--target {target}: {error:#}"))?;
    }
    Engine::new(&settings).map_err(|error| format!("{error:#}"))
}

/// Returns the id of the engine that can load code for `target`: a hash of the native code of an
/// empty component. That code contains wasmtime's version and all settings that an engine compares
/// before it loads code.
fn engine_id(target: &str) -> Result<String, String> {
    let native = engine(Some(target))?.precompile_component(EMPTY).map_err(|e| format!("{e:#}"))?;
    let mut hasher = DefaultHasher::new();
    native.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// Prints a text. A reader that closes the pipe early is no error.
fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(()),
    }
}

fn complain(text: &str) {
    // A failure to write to standard error cannot be reported anywhere.
    let _ = writeln!(std::io::stderr(), "heddle-compiler: {text}");
}

/// Replaces control characters, which a component's names may contain and a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn command_lines_are_parsed() {
        let text = |text: &str| Some(text.to_owned());
        let (input, output) = (PathBuf::from("in"), PathBuf::from("out"));
        let compile = Command::Compile { engine: text("id"), target: text("t"), input, output };
        assert_eq!(parsed("compile --engine id in out --target t"), Ok(compile));
        assert_eq!(parsed("engine"), Ok(Command::Engine { target: None }));
        assert_eq!(parsed("--help"), Ok(Command::Help));
    }

    #[test]
    fn wrong_command_lines_are_rejected() {
        for line in ["", "other", "compile in", "compile in out more", "engine in", "--what"] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert_eq!(parsed("compile in out --engine"), Err("--engine needs a value".to_owned()));
    }

    #[test]
    fn engine_id_differs_between_targets() {
        let id = |target| engine_id(target).unwrap();
        assert_eq!(id(TARGET), id(TARGET));
        assert_ne!(id("x86_64-unknown-linux-gnu"), id("x86_64-unknown-linux-musl"));
    }
}
