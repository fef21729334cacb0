//! The daemon's flags: flannel's, and Heddle's own.
//!
//! Operators' scripts rely on flannel's flags, which follow Go's rules: one dash or two, `-flag
//! value` or `-flag=value`, booleans bare or as `=true`, and each flag also as an environment
//! variable, `FLANNELD_ETCD_PREFIX`. The command line takes precedence over `--environment-file`,
//! which takes precedence over the environment. The last of several values wins unless the flag is
//! a list. An empty value, which is what templates make of an unset variable, stands for the
//! default.
//!
//! This is a separate crate, because the command line tool inspects a host with the same flags
//! (`heddle doctor`).

#![forbid(unsafe_code)]

mod control_socket;
mod emit;
mod environment_file;
mod go_bool;
mod go_int;
mod groups;
mod identity;
mod like_go;
mod sources;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};

pub use crate::emit::{Emit, InvalidEmit};
pub use crate::environment_file::read_environment_file;
pub use crate::groups::{
    ControlFlags, FileFlags, HealthFlags, InterfaceFlags, KubernetesFlags, LeaseFlags, RuleFlags,
    SUBNET_ENV_LIMIT,
};
pub use crate::identity::{Identity, IdentityError};

use crate::like_go::{Given, read_like_go, without_empty, without_truth};

/// Joins this host to an overlay network: leases a subnet and keeps the kernel as the backend plans
/// it.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "heddled",
    version,
    disable_help_subcommand = true,
    args_override_self = true,
    after_help = "Each flag has an environment variable: FLANNELD_ and the flag's name in upper case with underscores, \
                  such as FLANNELD_ETCD_PREFIX. The command line precedes --environment-file, which precedes the \
                  environment. As with flannel, flags start with one dash or two.\n\n\
                  Exit codes: 0 after SIGTERM or SIGINT, 1 after a failure, 2 for an invalid command line."
)]
pub struct Flags {
    /// Flags for the lease store and this node's lease.
    #[command(flatten, next_help_heading = "Leases")]
    pub lease: LeaseFlags,

    /// Flags for the interface between hosts.
    #[command(flatten, next_help_heading = "Interface")]
    pub interface: InterfaceFlags,

    /// Flags for traffic rules.
    #[command(flatten, next_help_heading = "Traffic rules")]
    pub rules: RuleFlags,

    /// Flags for plugins and files.
    #[command(flatten, next_help_heading = "Plugins and files")]
    pub files: FileFlags,

    /// Flags for the control socket.
    #[command(flatten, next_help_heading = "Control")]
    pub control: ControlFlags,

    /// Flags for health endpoints and logs.
    #[command(flatten, next_help_heading = "Health and logs")]
    pub health: HealthFlags,

    /// Flags for Kubernetes, which is not supported yet.
    #[command(flatten, next_help_heading = "Kubernetes (not supported yet)")]
    pub kubernetes: KubernetesFlags,
}

impl Flags {
    /// Parses the command line, which begins with the program's name. Flags missing there are taken
    /// from `--environment-file`, read through `file`, and flags missing there from the
    /// environment, through `variable`.
    ///
    /// # Errors
    ///
    /// clap's error, which also stands for `--help` and `--version`.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<String>,
        file: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let mut arguments = arguments.into_iter();
        let program = arguments.next();
        let (mut given, rest) = read_like_go(&command, arguments);
        let rest = without_truth(&command, &given, rest)
            .map_err(|reason| command.error(ErrorKind::UnknownArgument, reason))?;
        let origins = sources::complete(&mut command, &mut given, variable, file)?;
        let flags = without_empty(&command, given).into_iter().map(Given::into_argument);
        let arguments: Vec<_> = program.into_iter().chain(flags).chain(rest).collect();
        let matches = command.try_get_matches_from_mut(arguments);
        let flags = matches.and_then(|matches| Self::from_arg_matches(&matches));
        let mut flags = flags.map_err(|error| sources::blame(error, &origins))?;
        flags.lease.complete_endpoints();
        match flags.contradiction() {
            Some(reason) => {
                let reason = sources::with_origins(reason, &origins);
                Err(command.error(ErrorKind::ValueValidation, reason))
            }
            None => Ok(flags),
        }
    }

    /// Returns the names of given flags that are flannel's and have no effect.
    pub fn ignored(&self) -> Vec<&'static str> {
        [self.health.ignored(), self.kubernetes.ignored()].concat()
    }

    /// Returns the reason why no daemon can run with these flags, although each is valid by itself.
    /// A restart would not help.
    fn contradiction(&self) -> Option<String> {
        if self.kubernetes.kube_subnet_mgr {
            return Some(
                "--kube-subnet-mgr: leases from the Kubernetes API are not supported yet; leave the flag out to \
                 use etcd, or give --store dir:PATH"
                    .to_owned(),
            );
        }
        let store = self.lease.store.open(self.lease.etcd_options());
        store.err().map(|error| error.to_string())
    }

    /// Parses the flags of this process, with its environment and the real files.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn of_process(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::read(arguments, |name| std::env::var(name).ok(), read_environment_file)
    }
}
