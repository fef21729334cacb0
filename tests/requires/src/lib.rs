//! Names what a test needs of the machine, and skips the test where that is missing.
//!
//! ```no_run
//! use heddle_requires::requires;
//!
//! fn lease_is_stored_in_etcd() {
//!     requires!(Program("etcd"));
//!     // The test.
//! }
//! # lease_is_stored_in_etcd();
//! ```
//!
//! A skipped test counts as passed, and prints one line, which Cargo shows without `--nocapture`:
//!
//! ```text
//! SKIPPED heddle-store etcd::lease_is_stored_in_etcd: needs `etcd`, which is not in PATH (`make test` runs it)
//! ```
//!
//! If the environment variable `HEDDLE_REQUIRE_ALL` is set, as `make test` does, the test fails
//! instead, so that CI never passes for want of a program.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::{env, fs, io, thread};

use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use rustix::process::geteuid;

/// Environment variable. If it is set and not empty, a test fails if something that it needs is
/// missing.
pub const REQUIRE_ALL: &str = "HEDDLE_REQUIRE_ALL";

/// The lines that this process has printed.
static PRINTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The device file that makes TUN devices.
const TUN: &str = "/dev/net/tun";

/// Numbers of `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` in linux/capability.h.
const NAMESPACE_CAPABILITIES: [u32; 2] = [12, 21];

/// A thing that a test needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The effective user root: to give files away, and to read what others may not.
    Root,
    /// Leave to make and change network namespaces. Root has it, unless it is in a container that
    /// withholds the capabilities.
    Namespaces,
    /// `/dev/net/tun`, which makes TUN devices.
    TunDevice,
    /// A socket for ICMP echo requests, raw or of the kind that `net.ipv4.ping_group_range` allows.
    EchoSocket,
    /// A program in `PATH`.
    Program(&'static str),
}

impl Requirement {
    /// Returns true if this machine and user have it.
    #[must_use]
    pub fn is_met(self) -> bool {
        match self {
            Self::Root => geteuid().is_root(),
            Self::Namespaces => fs::read_to_string("/proc/thread-self/status")
                .is_ok_and(|status| may_make_namespaces(&status)),
            Self::TunDevice => Path::new(TUN).exists(),
            Self::EchoSocket => [SocketType::DGRAM, SocketType::RAW]
                .into_iter()
                .any(|kind| socket(AddressFamily::INET, kind, Some(ipproto::ICMP)).is_ok()),
            Self::Program(name) => is_installed(name, &env::var_os("PATH").unwrap_or_default()),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Namespaces => {
                f.write_str("root with CAP_NET_ADMIN and CAP_SYS_ADMIN, to make network namespaces")
            }
            Self::TunDevice => write!(f, "{TUN}"),
            Self::EchoSocket => f.write_str(
                "a socket for echo requests (CAP_NET_RAW, or net.ipv4.ping_group_range)",
            ),
            Self::Program(name) => write!(f, "`{name}`, which is not in PATH"),
        }
    }
}

/// Returns from the test if something that it needs is missing, after a line that says so. The
/// arguments are variants of [`Requirement`]; the function with the macro returns nothing.
///
/// # Panics
///
/// If something is missing and `HEDDLE_REQUIRE_ALL` is set.
#[macro_export]
macro_rules! requires {
    ($($requirement:ident $(($of:expr))?),+ $(,)?) => {
        if !$crate::are_met(
            env!("CARGO_PKG_NAME"),
            &[$($crate::Requirement::$requirement $(($of))?),+],
        ) {
            return;
        }
    };
}

/// Returns true if all requirements are met, and otherwise prints that the current test, of this
/// package, is skipped. [`requires!`] calls it.
///
/// # Panics
///
/// If one is not met and `HEDDLE_REQUIRE_ALL` is set.
#[must_use]
#[track_caller]
pub fn are_met(package: &str, requirements: &[Requirement]) -> bool {
    let Some(missing) = requirements.iter().find(|requirement| !requirement.is_met()) else {
        return true;
    };
    let all = env::var_os(REQUIRE_ALL).is_some_and(|value| !value.is_empty());
    assert!(!all, "needs {missing}, and {REQUIRE_ALL} is set");
    // The test runner names the thread of a test after it.
    let thread = thread::current();
    let line = skipped(package, thread.name().unwrap_or("a test"), *missing);
    // A test may ask more than once.
    if PRINTED.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        // Not `eprintln!`, whose output the test runner hides if the test passes. It is no concern
        // of the test if nobody can read it.
        let _ = io::stderr().write_all(line.as_bytes());
    }
    false
}

/// Returns the line about a skipped test.
fn skipped(package: &str, test: &str, missing: Requirement) -> String {
    format!("SKIPPED {package} {test}: needs {missing} (`make test` runs it)\n")
}

/// Returns true if a process with this `/proc/PID/status` has the capabilities to make and change
/// network namespaces.
fn may_make_namespaces(status: &str) -> bool {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    effective.is_some_and(|mask| NAMESPACE_CAPABILITIES.iter().all(|bit| mask & (1 << bit) != 0))
}

/// Returns true if one of the directories in `path` has an executable file of this name.
fn is_installed(name: &str, path: &OsStr) -> bool {
    env::split_paths(path).any(|directory| is_executable(&directory.join(name)))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NOWHERE: &str = "heddle-no-such-program";

    #[test]
    fn skip_line_names_package_test_and_reason() {
        assert_eq!(
            skipped("heddle-store", "etcd::one", Requirement::Program("etcd")),
            "SKIPPED heddle-store etcd::one: needs `etcd`, which is not in PATH (`make test` runs it)\n"
        );
    }

    #[test]
    fn namespaces_need_both_capabilities() {
        for (mask, expected) in [
            ("000001ffffffffff", true),
            ("0000000000201000", true),
            ("0000000000200000", false),
            ("0000000000001000", false),
            // Root in a container of Docker.
            ("00000000a80425fb", false),
            ("0000000000000000", false),
            ("", false),
        ] {
            let status = format!("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n");
            assert_eq!(may_make_namespaces(&status), expected, "{mask}");
        }
        assert!(!may_make_namespaces(""));
    }

    #[test]
    fn only_executable_files_count_as_programs() {
        let [empty, with_file] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let path = env::join_paths([empty.path(), with_file.path()]).unwrap();
        let program = with_file.path().join("program");
        assert!(!is_installed("program", &path));
        fs::create_dir(&program).unwrap();
        assert!(!is_installed("program", &path));
        fs::remove_dir(&program).unwrap();
        fs::write(&program, "").unwrap();
        assert!(!is_installed("program", &path));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_installed("program", &path));
    }

    /// Runs the ignored test below, and returns its outcome and all that it prints.
    fn outcome(require_all: &str) -> (bool, String) {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "tests::needs_what_nobody_has"])
            .env(REQUIRE_ALL, require_all)
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    }

    #[test]
    fn unmet_requirement_skips_and_prints_the_name_of_the_test() {
        let (passed, printed) = outcome("");
        assert!(passed, "{printed}");
        let line = format!(
            "SKIPPED heddle-requires tests::needs_what_nobody_has: needs `{NOWHERE}`, which is not in PATH"
        );
        assert_eq!(printed.matches(&line).count(), 1, "{printed}");
    }

    #[test]
    fn unmet_requirement_fails_where_all_are_required() {
        let (passed, printed) = outcome("1");
        assert!(!passed, "{printed}");
        assert!(printed.contains("and HEDDLE_REQUIRE_ALL is set"), "{printed}");
        assert!(!printed.contains("SKIPPED"), "{printed}");
    }

    #[test]
    #[ignore = "needs a program that does not exist, and is run by other tests"]
    fn needs_what_nobody_has() {
        // Twice, and printed once.
        let skips = || requires!(Program("sh"), Program(NOWHERE));
        skips();
        requires!(Program("sh"), Program(NOWHERE));
        unreachable!("{NOWHERE} is installed");
    }
}
