//! Compiles a plugin in a child process, so that this one carries no compiler and survives its faults.

use std::ffi::OsStr;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use heddle_grant::text::{memory, plain, time};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::cache::Cache;

/// The command line tool, the only binary with a compiler.
const TOOL: &str = "heddle";

/// How long a compilation may take. The embedded plugins take a tenth of a second.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// How much memory a compilation may take, in bytes. The embedded plugins take some tens of MiB, those with a language's
/// whole runtime inside a GiB.
const MEMORY_LIMIT: u64 = 3 << 30;

/// The most native code, in bytes: four times the largest component.
const CODE_LIMIT: u64 = 256 << 20;

const POLL: Duration = Duration::from_millis(10);

/// A component that was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The command line tool is nowhere.
    #[error("`{TOOL}`, which compiles it, was not found at {}: install it there", list(.0))]
    NoCompiler(Vec<PathBuf>),
    /// It says no.
    #[error("`{} plugin compile` failed ({status}): {message}", .tool.display())]
    Failed {
        /// The tool.
        tool: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        message: String,
    },
    /// It did not finish.
    #[error("`{} plugin compile` was stopped after {}", .0.display(), time(TIME_LIMIT))]
    TimedOut(PathBuf),
    /// Too much came of it.
    #[error("`{} plugin compile` made {} of it: expected at most {}", .tool.display(), memory(*.size as usize), memory(CODE_LIMIT as usize))]
    TooLarge {
        /// The tool.
        tool: PathBuf,
        /// In bytes.
        size: u64,
    },
    /// There is no room for what goes into the compiler.
    #[error("cannot write to {}: {error}", directory.display())]
    Workplace {
        /// The cache directory.
        directory: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It could not be run.
    #[error("`{} plugin compile` cannot be run: {error}", .tool.display())]
    Io {
        /// The tool.
        tool: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Native code for a component. `tool` is used if given, else the one beside this executable or in `PATH`.
pub(crate) fn compile(
    component: &[u8],
    tool: Option<&Path>,
    cache: &Cache,
) -> Result<Vec<u8>, CompileError> {
    let tool = find_tool(tool)?;
    let io = |error| CompileError::Io { tool: tool.clone(), error };
    let workplace = cache.workplace().map_err(|error| io(io::Error::other(error)))?;
    // A copy, because the file may have changed since it was read.
    let (input, output) = (workplace.path().join("in.wasm"), workplace.path().join("out.cwasm"));
    fs::write(&input, component).map_err(|error| {
        // Its own name is another each time.
        let directory = workplace.path().parent().unwrap_or(workplace.path()).to_owned();
        CompileError::Workplace { directory, error }
    })?;

    let mut messages = tempfile::tempfile().map_err(io)?;
    let mut child = Command::new(&tool)
        .args([OsStr::new("plugin"), OsStr::new("compile"), input.as_os_str(), output.as_os_str()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone().map_err(io)?)
        .spawn()
        .map_err(io)?;
    limit(&child);
    let deadline = Instant::now() + TIME_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(io)? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill().map_err(io)?;
            child.wait().map_err(io)?;
            return Err(CompileError::TimedOut(tool));
        }
        thread::sleep(POLL);
    };
    if !status.success() {
        let mut text = Vec::new();
        messages.rewind().map_err(io)?;
        messages.take(4096).read_to_end(&mut text).map_err(io)?;
        // The copy's name is another each time, and would make news of what was said before.
        let text = String::from_utf8_lossy(&text).replace(&*input.to_string_lossy(), "it");
        let message = plain(&text);
        return Err(CompileError::Failed { tool, status, message });
    }
    match fs::metadata(&output).map_err(io)?.len() {
        size if size > CODE_LIMIT => Err(CompileError::TooLarge { tool, size }),
        _ => fs::read(&output).map_err(io),
    }
}

/// Sees to it that it ends even if this process does before it, and that it leaves some memory to others.
fn limit(child: &Child) {
    let at_most = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    let pid = Some(Pid::from_child(child));
    for (resource, most) in [(Resource::Cpu, TIME_LIMIT.as_secs()), (Resource::As, MEMORY_LIMIT)] {
        // It may have ended already.
        let _ = prlimit(pid, resource, at_most(most));
    }
}

fn find_tool(tool: Option<&Path>) -> Result<PathBuf, CompileError> {
    let candidates = match tool {
        Some(tool) => vec![tool.to_owned()],
        None => {
            let beside = env::current_exe().ok().and_then(|path| Some(path.parent()?.join(TOOL)));
            let path = env::var_os("PATH").unwrap_or_default();
            let in_path = env::split_paths(&path).map(|dir| dir.join(TOOL)).collect::<Vec<_>>();
            beside.into_iter().chain(in_path).collect()
        }
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(CompileError::NoCompiler(candidates)),
    }
}
