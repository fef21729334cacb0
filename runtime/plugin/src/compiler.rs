//! Compiles a plugin in a child process, `heddle-compiler`. So neither `heddled` nor `heddle`
//! contains a compiler, and both survive its faults.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use heddle_core::cgroup::{GroupMemory, explain_kill};
use heddle_files::{Reason, RegularFile, TrustError, Untrusted};
use heddle_grant::text::{memory, plain, time};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tempfile::TempDir;

use crate::cache::{Cache, workplace_in};
use crate::engine::FINGERPRINT;

/// The program with the compiler: `runtime/plugin/compiler`.
const PROGRAM: &str = "heddle-compiler";

/// Remedy for a compiler that is missing or damaged: the end of a message.
const SAME_BUILD: &str = "with heddled and heddle, from the same package or tarball";

/// The directory that packages install it in.
const LIBEXEC: &str = "/usr/libexec/heddle";

/// Limits of a compilation. The embedded plugins need a tenth of a second. A busy machine may
/// need minutes for some seconds of CPU time, so the limit of CPU time is the lower one.
const LIMITS: Limits = Limits {
    processor: Duration::from_secs(60),
    wait: Duration::from_secs(10 * 60),
    file: CODE_LIMIT,
};

/// Memory limit of a compilation, in bytes. The embedded plugins need some tens of MiB, plugins
/// with the whole runtime of a language up to a GiB.
const MEMORY_LIMIT: u64 = 3 << 30;

/// Size limit of native code in bytes: four times the largest component.
const CODE_LIMIT: u64 = 256 << 20;

/// Makes the compiler the OOM killer's first choice (proc_pid_oom_score_adj(5)).
const OOM_SCORE: &str = "1000";

/// Interval between checks whether the compiler has exited.
const POLL: Duration = Duration::from_millis(10);

/// Limits of a compilation.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// CPU time, in whole seconds.
    processor: Duration,
    /// Wall-clock time until the compiler has exited.
    wait: Duration,
    /// Size of a file that the compiler writes, in bytes: the native code, or its messages.
    file: u64,
}

/// Reason that a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The program with the compiler is missing.
    #[error(
        "there is no {PROGRAM} at {}; install it {SAME_BUILD}",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
    )]
    NoCompiler(Vec<PathBuf>),
    /// Other users can replace the program.
    #[error("{} is not run: {error}", .program.display())]
    Untrusted {
        /// The program.
        program: PathBuf,
        /// The reason that it is not trusted, and the remedy.
        error: TrustError,
    },
    /// The compiler rejected the component, or exited with another failure.
    #[error("`{}` failed ({status}): {message}", .program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// Its exit status.
        status: ExitStatus,
        /// Its output to standard error.
        message: String,
    },
    /// SIGKILL from an unknown sender ended the compiler.
    #[error("`{}` was killed by signal 9 (SIGKILL): {reason}", .program.display())]
    Killed {
        /// The program.
        program: PathBuf,
        /// The most likely cause, and the remedy.
        reason: String,
    },
    /// The compiler reached its limit of CPU time.
    #[error("`{}` was stopped after {} of CPU time", .program.display(), time(*.limit))]
    TooMuchWork {
        /// The program.
        program: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// The compiler reached its limit of memory.
    #[error("`{}` needs more than {} of memory", .program.display(), memory(MEMORY_LIMIT))]
    TooMuchMemory {
        /// The program.
        program: PathBuf,
    },
    /// The compiler did not exit in time.
    #[error("`{}` was stopped after {}", .program.display(), time(*.limit))]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// The native code, or the compiler's output to standard error, is too large.
    #[error("`{}` wrote a file of more than {}", .program.display(), memory(*.limit))]
    TooLarge {
        /// The program.
        program: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The compiler exited with success, and left no native code that can be read.
    #[error(
        "`{}` left no native code: {reason}; install it again, {SAME_BUILD}", .program.display()
    )]
    NoCode {
        /// The program.
        program: PathBuf,
        /// The reason that its output cannot be read.
        reason: Reason,
    },
    /// The input of the compiler cannot be written.
    #[error("cannot write to {}: {error}", directory.display())]
    Workplace {
        /// The directory.
        directory: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The program cannot be run.
    #[error("`{}` cannot be run: {error}{}", .program.display(), remedy(.error))]
    Io {
        /// The program.
        program: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

/// Returns what to do about a program that the kernel does not run, formatted as the end of a
/// message.
fn remedy(error: &io::Error) -> String {
    let is_unusable = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error());
    if is_unusable { format!("; install it again, {SAME_BUILD}") } else { String::new() }
}

/// Compiles a component to native code for this machine, in a child process with limits. `program`
/// is a `heddle-compiler` that the caller vouches for, as tests do; None means the one that
/// [`find_program`] finds and checks.
///
/// # Errors
///
/// [`CompileError`]: the compiler is missing or not trusted, rejects the component, or exceeds a
/// limit.
pub fn compile(component: &[u8], program: Option<&Path>) -> Result<Vec<u8>, CompileError> {
    let directory = env::temp_dir();
    let workplace =
        workplace_in(&directory).map_err(|error| CompileError::Workplace { directory, error })?;
    compile_within(LIMITS, component, find_program(program)?, &workplace)
}

/// Compiles a component like [`compile`], with its temporary files in the cache directory.
pub(crate) fn compile_in(
    cache: &Cache,
    component: &[u8],
    program: Option<&Path>,
) -> Result<Vec<u8>, CompileError> {
    let program = find_program(program)?;
    let workplace = cache.workplace().map_err(|error| CompileError::Workplace {
        directory: cache.directory().to_owned(),
        error,
    })?;
    compile_within(LIMITS, component, program, &workplace)
}

#[expect(clippy::disallowed_methods, reason = "runs heddle-compiler")]
fn compile_within(
    limits: Limits,
    component: &[u8],
    program: PathBuf,
    workplace: &TempDir,
) -> Result<Vec<u8>, CompileError> {
    let io = |error| CompileError::Io { program: program.clone(), error };
    let unwritable = |error| {
        // Name the parent: the name of the workplace itself differs each time.
        let directory = workplace.path().parent().unwrap_or(workplace.path()).to_owned();
        CompileError::Workplace { directory, error }
    };
    // Compile a copy, because the file may have changed since it was read.
    let [input, output, errors] =
        ["in.wasm", "out.cwasm", "errors"].map(|name| workplace.path().join(name));
    fs::write(&input, component).map_err(unwritable)?;
    let mut messages = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(errors)
        .map_err(unwritable)?;
    let memory = group_memory();
    let mut child = Command::new(&program)
        .args(["compile", "--engine", FINGERPRINT])
        .args([&input, &output])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone().map_err(io)?)
        .spawn()
        .map_err(io)?;
    limit(&child, limits);
    let Some(status) = wait_within(limits.wait, &mut child).map_err(io)? else {
        return Err(CompileError::TimedOut { program, limit: limits.wait });
    };
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        return Err(CompileError::TooMuchWork { program, limit: limits.processor });
    }
    if status.signal() == Some(Signal::KILL.as_raw()) {
        let reason = explain_kill(memory.as_ref(), group_memory().as_ref());
        return Err(CompileError::Killed { program, reason });
    }
    if status.signal() == Some(Signal::XFSZ.as_raw()) {
        return Err(CompileError::TooLarge { program, limit: limits.file });
    }
    if !status.success() {
        let mut text = Vec::new();
        messages.rewind().map_err(io)?;
        messages.take(4096).read_to_end(&mut text).map_err(io)?;
        // The names differ each time, so the log would take a repeated error for a new one.
        let text = String::from_utf8_lossy(&text)
            .replace(&*input.to_string_lossy(), "it")
            .replace(&*output.to_string_lossy(), "its native code");
        // What Rust says before it aborts (`std::alloc::handle_alloc_error`).
        if status.signal() == Some(Signal::ABORT.as_raw()) && text.contains("memory allocation of")
        {
            return Err(CompileError::TooMuchMemory { program });
        }
        let message = match text.trim() {
            "" => "it wrote no message".to_owned(),
            text => plain(text),
        };
        return Err(CompileError::Failed { program, status, message });
    }
    let native = RegularFile::open_nofollow(&output).and_then(|file| file.read(limits.file));
    native.map_err(|error| match error.reason {
        Reason::TooLarge(limit) => CompileError::TooLarge { program, limit },
        reason => CompileError::NoCode { program, reason },
    })
}

/// Waits for a process to exit. Returns None if it took longer than `limit`, and was killed.
#[expect(clippy::disallowed_methods, reason = "waits on a thread for blocking calls")]
fn wait_within(limit: Duration, child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[expect(clippy::disallowed_methods, reason = "files of the kernel")]
fn group_memory() -> Option<GroupMemory> {
    GroupMemory::read(|path| fs::read_to_string(path).ok())
}

/// Limits the compiler's CPU time, memory and files, also if this process exits first, and makes it the
/// OOM killer's first choice: a compilation can be repeated, and this process has to survive.
fn limit(child: &Child, limits: Limits) {
    let pid = Some(Pid::from_child(child));
    let seconds = limits.processor.as_secs();
    // The kernel sends SIGXCPU at the soft limit, and SIGKILL at the hard limit, a second later.
    let processor = Rlimit { current: Some(seconds), maximum: Some(seconds + 1) };
    let memory = Rlimit { current: Some(MEMORY_LIMIT), maximum: Some(MEMORY_LIMIT) };
    let file = Rlimit { current: Some(limits.file), maximum: Some(limits.file) };
    for (resource, most) in
        [(Resource::Cpu, processor), (Resource::As, memory), (Resource::Fsize, file)]
    {
        // The compiler may have exited already.
        let _ = prlimit(pid, resource, most);
    }
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE);
}

/// Returns the path of the compiler: beside this executable, as in a build tree, or where packages
/// install it.
///
/// No flag and no environment variable names another path: whoever sets it would choose the code
/// that the daemon runs.
fn find_program(given: Option<&Path>) -> Result<PathBuf, CompileError> {
    let executable = env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent).map(|parent| parent.join(PROGRAM));
    let candidates: Vec<_> = match given {
        Some(program) => vec![program.to_owned()],
        None => beside.clone().into_iter().chain([Path::new(LIBEXEC).join(PROGRAM)]).collect(),
    };
    let Some(program) = candidates.iter().find(|path| path.exists()).cloned() else {
        return Err(CompileError::NoCompiler(candidates));
    };
    if given.is_none()
        && let Err(error) = check_trust(&program, beside.as_ref() == Some(&program))
    {
        return Err(CompileError::Untrusted { program, error });
    }
    Ok(program)
}

/// Checks that only trusted users can replace the program. For one beside this executable, it is
/// enough that only those who can replace the executable can replace the program.
fn check_trust(program: &Path, is_beside: bool) -> Result<(), TrustError> {
    let unreadable = |error| TrustError {
        path: program.to_owned(),
        untrusted: Untrusted::Io(io::Error::from(error)),
    };
    let file = RegularFile::open(program).map_err(unreadable)?;
    let executable = fs::metadata("/proc/self/exe").ok();
    match file.vouch() {
        // For example in the build tree of a user who runs the result as root.
        Err(_)
            if is_beside
                && executable.is_some_and(|it| is_as_trusted(file.metadata(), &it))
                && fs::symlink_metadata(program).is_ok_and(|found| found.is_file()) =>
        {
            Ok(())
        }
        judged => judged,
    }
}

/// Returns true if everybody who can write to `file` can write to `executable`, which is in the
/// same directory.
fn is_as_trusted(file: &Metadata, executable: &Metadata) -> bool {
    let writable = file.mode() & 0o022;
    file.uid() == executable.uid()
        && writable & !executable.mode() == 0
        && (writable & 0o020 == 0 || file.gid() == executable.gid())
}

#[cfg(test)]
mod tests;
