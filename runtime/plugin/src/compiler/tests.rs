use std::os::unix::fs::PermissionsExt;

use super::*;

/// A time limit that no test reaches, even on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Returns the error of a compiler that is this shell script, with a second of CPU time and
/// `wait` as its time limit.
fn outcome(script: &str, wait: Duration) -> CompileError {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let cache = Cache::open(&directory.path().join("cache")).unwrap();
    let limits = Limits { processor: Duration::from_secs(1), wait, file: 1 << 20 };
    loop {
        let workplace = cache.workplace().unwrap();
        match compile_within(limits, b"", program.clone(), &workplace).unwrap_err() {
            // Retry: a child that another test forks meanwhile has the script open for writing
            // until its exec.
            CompileError::Io { error, .. } if error.kind() == ErrorKind::ExecutableFileBusy => {}
            error => return error,
        }
    }
}

#[test]
fn endless_computation_is_stopped() {
    let error = outcome("while :; do :; done", SOON);
    assert!(matches!(error, CompileError::TooMuchWork { .. }), "{error}");
    assert!(error.to_string().ends_with("was stopped after 1 s of CPU time"));
}

#[test]
fn endless_wait_is_stopped() {
    let error = outcome("exec sleep 1000", Duration::from_secs(1));
    assert!(matches!(error, CompileError::TimedOut { .. }), "{error}");
}

#[test]
fn killed_compiler_is_reported_with_remedy() {
    let error = outcome("kill -KILL $$", SOON);
    assert!(matches!(error, CompileError::Killed { .. }), "{error}");
    for part in ["program` was killed by signal 9 (SIGKILL)", "OOM killer", "MemoryMax="] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn compiler_has_highest_oom_score() {
    let script = "while [ $(cat /proc/$$/oom_score_adj) != 1000 ]; do sleep 0.1; done; \
                  echo first >&2; exit 3";
    assert!(outcome(script, SOON).to_string().ends_with(": first"));
}

#[test]
fn compiler_stderr_is_in_the_error() {
    let error = outcome("echo it is no component >&2; exit 3", SOON);
    assert!(matches!(error, CompileError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("it is no component"), "{error}");
}

#[test]
fn compiler_error_names_no_temporary_file() {
    let error = outcome("echo cannot write $5: disk full >&2; exit 1", SOON).to_string();
    assert!(error.ends_with(": cannot write its native code: disk full"), "{error}");
    let error = outcome("exit 3", SOON).to_string();
    assert!(error.ends_with("failed (exit status: 3): it wrote no message"), "{error}");
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("cache");
    let cache = Cache::open(&directory).unwrap();
    fs::remove_dir(&directory).unwrap();
    let error = compile_in(&cache, b"", Some(Path::new("/bin/false"))).unwrap_err();
    let expected = format!("cannot write to {}: No such file", directory.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(!error.to_string().contains("compile-"), "{error}");
}

#[test]
fn output_not_a_regular_file_is_refused() {
    for (script, reason) in [
        ("exit 0", "No such file or directory (os error 2)"),
        ("mkdir $5", "it is a directory: expected a regular file"),
        ("ln -s /etc/passwd $5", "it is a symbolic link: expected a regular file"),
        ("mkfifo $5", "it is a FIFO: expected a regular file"),
    ] {
        let error = outcome(script, SOON).to_string();
        let expected = format!("program` left no native code: {reason}; install it again");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn memory_limit_is_named() {
    let script = "echo memory allocation of 4624 bytes failed >&2; kill -ABRT $$";
    let error = outcome(script, SOON).to_string();
    assert!(error.ends_with("program` needs more than 3072 MiB of memory"), "{error}");
    let error = outcome("echo assertion failed >&2; kill -ABRT $$", SOON).to_string();
    assert!(error.ends_with(": assertion failed"), "{error}");
}

#[test]
fn endless_output_is_stopped() {
    for script in ["exec cat /dev/zero >&2", "exec cat /dev/zero >$5", "exec truncate -s 1025K $5"]
    {
        let error = outcome(script, SOON).to_string();
        assert!(error.ends_with("program` wrote a file of more than 1 MiB"), "{error}");
    }
}

#[test]
fn compiler_without_execute_permission_is_reported_with_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(PROGRAM);
    fs::write(&program, "").unwrap();
    let cache = Cache::open(&directory.path().join("cache")).unwrap();
    let error = compile_in(&cache, b"", Some(&program)).unwrap_err().to_string();
    let expected = "cannot be run: Permission denied (os error 13); install it again, with";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn missing_compiler_is_reported_with_remedy() {
    let error = find_program(Some(Path::new("/nonexistent/heddle-compiler"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no heddle-compiler at /nonexistent/heddle-compiler; \
         install it with heddled and heddle, from the same package or tarball"
    );
    // No compiler is beside this test, but this machine may have the package.
    let installed = Path::new("/usr/libexec/heddle/heddle-compiler");
    match find_program(None) {
        Err(CompileError::NoCompiler(searched)) => assert_eq!(searched[1], installed),
        found => assert_eq!(found.unwrap(), installed),
    }
}

#[test]
fn compiler_writable_by_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(PROGRAM);
    fs::write(&program, "").unwrap();
    let set_mode = |mode| fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o755);
    check_trust(&program, false).unwrap();
    for is_beside in [false, true] {
        set_mode(0o757);
        let error = check_trust(&program, is_beside).unwrap_err();
        assert!(matches!(error.untrusted, Untrusted::Mode(0o757)), "{error}");
    }
    set_mode(0o755);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    check_trust(&program, false).unwrap_err();
    // Whoever can write to the executable's directory can replace the executable as well.
    check_trust(&program, true).unwrap();
}
