//! A plugin as the component that it is built as.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Scenario;

/// The command line tool: what `HEDDLE` in the environment names, or `heddle` in `PATH`.
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
    /// The component in this file, or one that ships with Heddle, by its name.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), tool: heddle() }
    }

    /// The same, with another command line tool than [`heddle`].
    #[must_use]
    pub fn with_tool(self, tool: impl AsRef<Path>) -> Self {
        Self { tool: tool.as_ref().to_owned(), ..self }
    }

    /// What the crate under test is as a component, built for that now: `manifest_dir` is its
    /// `env!("CARGO_MANIFEST_DIR")`, and `library` the library's name, that of the package with `_` for `-`.
    ///
    /// # Panics
    ///
    /// It cannot be built.
    pub fn build(manifest_dir: impl AsRef<Path>, library: &str) -> Self {
        let target_dir = manifest_dir.as_ref().join("target/component");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&manifest_dir)
            .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--target-dir"])
            .arg(&target_dir);
        run(cargo, "");
        Self::file(target_dir.join("wasm32-wasip2/release").join(format!("{library}.wasm")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it plans in a scenario, as text: see [`Scenario::plan`].
    ///
    /// # Panics
    ///
    /// The [tool](heddle) is not there, or the file is no plugin.
    pub fn plan(&self, scenario: &Scenario) -> String {
        let mut command = Command::new(&self.tool);
        command.args(["plugin", "plan"]).arg(&self.path).arg("-");
        run(command, scenario.json())
    }
}

/// Runs a command to its end, and returns what it prints.
fn run(mut command: Command, input: &str) -> String {
    let program = command.get_program().to_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!(
            "{} cannot be run: {error}; heddle is looked for in PATH, or is what HEDDLE names",
            program.display()
        )
    });
    // Whoever does not read to the end has said why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed ({}): {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
