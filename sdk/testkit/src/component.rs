//! A plugin as a compiled component.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::Scenario;

/// Returns the command-line tool: the path in the environment variable `HEDDLE`, or `heddle` in
/// `PATH`.
pub fn heddle() -> PathBuf {
    env::var_os("HEDDLE").map_or_else(|| "heddle".into(), PathBuf::from)
}

/// A component in a file.
#[derive(Clone, Debug)]
pub struct Component {
    path: PathBuf,
    tool: PathBuf,
}

impl Component {
    /// Returns the component in this file, or a built-in one by its name.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), tool: heddle() }
    }

    /// Sets another command-line tool than [`heddle`].
    #[must_use]
    pub fn with_tool(self, tool: impl AsRef<Path>) -> Self {
        Self { tool: tool.as_ref().to_owned(), ..self }
    }

    /// Builds the crate under test as a component, like `cargo build --release --target
    /// wasm32-wasip2`. `manifest_dir` is the crate's `env!("CARGO_MANIFEST_DIR")`, and `library`
    /// the library's name, that of the package with `_` for `-`.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    pub fn build(manifest_dir: impl AsRef<Path>, library: &str) -> Self {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&manifest_dir);
        cargo.args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"]);
        cargo.arg("--message-format=json-render-diagnostics");
        // Cargo prints a line for each artifact, with its files.
        let messages = run(cargo, "");
        let built = messages.lines().filter_map(|line| serde_json::from_str::<Built>(line).ok());
        let files =
            built.filter(|built| built.target.name == library).flat_map(|built| built.filenames);
        let component =
            files.into_iter().rfind(|file| file.extension().is_some_and(|e| e == "wasm"));
        Self::file(
            component
                .unwrap_or_else(|| panic!("Cargo builds no component of a library `{library}`")),
        )
    }

    /// Returns the path of the component.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Plans a scenario, and returns the plan as text: see [`Scenario::plan`].
    ///
    /// # Panics
    ///
    /// If the [tool](heddle) is missing, or the file is not a plugin.
    pub fn plan(&self, scenario: &Scenario) -> String {
        run(self.question(), scenario.json())
    }

    /// Emits the files of a scenario with these settings, names and values, and returns them as
    /// text: see [`Scenario::emit`].
    ///
    /// # Panics
    ///
    /// Like [`Component::plan`].
    pub fn emit(&self, scenario: &Scenario, settings: &[(&str, &str)]) -> String {
        let mut command = self.question();
        for (name, value) in settings {
            command.arg(format!("--setting={name}={value}"));
        }
        run(command, scenario.json())
    }

    fn question(&self) -> Command {
        let mut command = Command::new(&self.tool);
        command.args(["plugin", "plan"]).arg(&self.path).arg("-");
        command
    }
}

/// Cargo's message about an artifact (`--message-format`).
#[derive(Deserialize)]
struct Built {
    target: Target,
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Runs a command to its end, and returns its output.
fn run(mut command: Command, input: &str) -> String {
    let program = command.get_program().to_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!(
            "{} cannot be run: {error}; heddle is looked for in PATH, or is what HEDDLE names",
            program.display()
        )
    });
    // A program that does not read all of its input reports the reason itself.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed ({}): {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
