//! Compiles a plugin in a child process, so that this one carries no compiler and survives its faults.

use std::ffi::OsStr;
use std::io::{self, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use heddle_core::cgroup::{GroupMemory, explain_kill};
use heddle_grant::text::{memory, plain, time};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::cache::Cache;

/// The command line tool, the only binary with a compiler.
const TOOL: &str = "heddle";

/// How long a compilation may take. The embedded plugins take a tenth of a second. A machine that has other things to do
/// may well need minutes for what is some seconds' work, so what counts is the work.
const LIMITS: Limits =
    Limits { processor: Duration::from_secs(60), wait: Duration::from_secs(10 * 60) };

/// How much memory a compilation may take, in bytes. The embedded plugins take some tens of MiB, those with a language's
/// whole runtime inside a GiB.
const MEMORY_LIMIT: u64 = 3 << 30;

/// The most native code, in bytes: four times the largest component.
const CODE_LIMIT: u64 = 256 << 20;

/// The first to be ended when memory runs out (proc_pid_oom_score_adj(5)).
const OOM_SCORE: &str = "1000";

const POLL: Duration = Duration::from_millis(10);

/// Bounds of a compilation.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The processors' time, in whole seconds.
    processor: Duration,
    /// The time until it has ended.
    wait: Duration,
}

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
    /// It was killed, by whom nobody says.
    #[error("`{} plugin compile` was killed by signal 9 (SIGKILL): {reason}", .tool.display())]
    Killed {
        /// The tool.
        tool: PathBuf,
        /// The most likely cause, and the remedy.
        reason: String,
    },
    /// It was too much work.
    #[error("`{} plugin compile` was stopped after {} of the processors' time", .tool.display(), time(*.limit))]
    TooMuchWork {
        /// The tool.
        tool: PathBuf,
        /// What there was.
        limit: Duration,
    },
    /// It did not finish.
    #[error("`{} plugin compile` was stopped after {}", .tool.display(), time(*.limit))]
    TimedOut {
        /// The tool.
        tool: PathBuf,
        /// What there was.
        limit: Duration,
    },
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
    compile_within(LIMITS, component, tool, cache)
}

fn compile_within(
    limits: Limits,
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
    let memory = group_memory();
    let mut child = Command::new(&tool)
        .args([OsStr::new("plugin"), OsStr::new("compile"), input.as_os_str(), output.as_os_str()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone().map_err(io)?)
        .spawn()
        .map_err(io)?;
    limit(&child, limits.processor);
    let deadline = Instant::now() + limits.wait;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(io)? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill().map_err(io)?;
            child.wait().map_err(io)?;
            return Err(CompileError::TimedOut { tool, limit: limits.wait });
        }
        thread::sleep(POLL);
    };
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        return Err(CompileError::TooMuchWork { tool, limit: limits.processor });
    }
    if status.signal() == Some(Signal::KILL.as_raw()) {
        let reason = explain_kill(memory.as_ref(), group_memory().as_ref());
        return Err(CompileError::Killed { tool, reason });
    }
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

fn group_memory() -> Option<GroupMemory> {
    GroupMemory::read(|path| fs::read_to_string(path).ok())
}

/// Sees to it that it ends even if this process does before it, and that it leaves some memory to others. Where there is
/// none left, the kernel ends it, which can be tried again, and not this process.
fn limit(child: &Child, processor: Duration) {
    let pid = Some(Pid::from_child(child));
    let seconds = processor.as_secs();
    // A second later it is killed, if `SIGXCPU` has not ended it.
    let processor = Rlimit { current: Some(seconds), maximum: Some(seconds + 1) };
    let memory = Rlimit { current: Some(MEMORY_LIMIT), maximum: Some(MEMORY_LIMIT) };
    for (resource, most) in [(Resource::Cpu, processor), (Resource::As, memory)] {
        // It may have ended already.
        let _ = prlimit(pid, resource, most);
    }
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE);
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Longer than anything here takes on a busy machine.
    const SOON: Duration = Duration::from_secs(60);

    /// What becomes of a compiler that does this, which may take a second of processors and is waited for so long.
    fn outcome(script: &str, wait: Duration) -> CompileError {
        let directory = tempfile::tempdir().unwrap();
        let tool = directory.path().join("tool");
        fs::write(&tool, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let cache = Cache::open(&directory.path().join("cache")).unwrap();
        let limits = Limits { processor: Duration::from_secs(1), wait };
        loop {
            match compile_within(limits, b"", Some(&tool), &cache).unwrap_err() {
                // A program that another test is just starting has it open for writing, until it is executed.
                CompileError::Io { error, .. } if error.kind() == ErrorKind::ExecutableFileBusy => {
                }
                error => return error,
            }
        }
    }

    #[test]
    fn what_works_on_and_on_is_stopped() {
        let error = outcome("while :; do :; done", SOON);
        assert!(matches!(error, CompileError::TooMuchWork { .. }), "{error}");
        assert!(error.to_string().ends_with("was stopped after 1 s of the processors' time"));
    }

    #[test]
    fn what_waits_for_ever_is_stopped() {
        let error = outcome("exec sleep 1000", Duration::from_secs(1));
        assert!(matches!(error, CompileError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn compiler_that_is_killed_is_named_with_the_remedy() {
        let error = outcome("kill -KILL $$", SOON);
        assert!(matches!(error, CompileError::Killed { .. }), "{error}");
        for part in ["plugin compile` was killed by signal 9 (SIGKILL)", "OOM killer", "MemoryMax="]
        {
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn compiler_goes_first_when_memory_runs_out() {
        let said = "while [ $(cat /proc/$$/oom_score_adj) != 1000 ]; do sleep 0.1; done; echo first >&2; exit 3";
        assert!(outcome(said, SOON).to_string().ends_with(": first"));
    }

    #[test]
    fn what_it_says_is_told() {
        let error = outcome("echo it is no component >&2; exit 3", SOON);
        assert!(matches!(error, CompileError::Failed { .. }), "{error}");
        assert!(error.to_string().contains("it is no component"), "{error}");
    }
}
