//! Selection of the daemon to query.

use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use heddle_control::{Client, DEFAULT_SOCKET, DIRECTORY, socket_of};
use heddle_core::text::list;

use crate::daemon_flags::control_socket;

/// Selects the daemon to query.
#[derive(Args)]
pub(crate) struct Daemon {
    /// Instance of the daemon, on a host with several networks
    #[arg(short, long, value_name = "NAME", value_parser = instance_name)]
    instance: Option<String>,
    /// Control socket of the daemon [default: FLANNELD_CONTROL_SOCKET of the environment or of /etc/default/heddled, else
    /// /run/heddle/heddled.sock, or /run/heddle/NAME.sock of an instance; without these, the only socket in /run/heddle]
    #[arg(long, value_name = "FILE", conflicts_with = "instance")]
    socket: Option<PathBuf>,
}

impl Daemon {
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let socket = match (&self.socket, &self.instance) {
            (Some(socket), _) => socket.clone(),
            (None, instance) => match (control_socket(instance.as_deref()), instance) {
                (Some(configured), _) => configured,
                (None, Some(instance)) => socket_of(Some(instance)),
                (None, None) => only_socket(Path::new(DEFAULT_SOCKET), Path::new(DIRECTORY))?,
            },
        };
        Ok(Client::new(socket))
    }
}

/// Returns the socket at the default path; without one there, the only socket in the directory.
fn only_socket(default: &Path, directory: &Path) -> anyhow::Result<PathBuf> {
    if is_alive(default) {
        return Ok(default.to_owned());
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut sockets: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .filter(|path| is_alive(path))
        .collect();
    sockets.sort();
    match sockets.as_slice() {
        [] => Ok(default.to_owned()),
        [only] => Ok(only.clone()),
        several => bail!(
            "there are several daemons: name one of their sockets with --socket: {}",
            list(several.iter().map(|path| path.display()))
        ),
    }
}

/// Returns true if a process listens on the socket, as far as this user can tell. A daemon leaves its
/// socket behind.
fn is_alive(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

/// Checks the name of an instance, which is a part of file names.
fn instance_name(name: &str) -> Result<String, &'static str> {
    match name.is_empty() || name.contains('/') || name.starts_with('.') {
        true => Err("expected the NAME of a unit heddled@NAME.service, without a slash"),
        false => Ok(name.to_owned()),
    }
}

/// Runs a future on a Tokio runtime to its end.
pub(crate) fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the asynchronous runtime")?.block_on(work)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn socket_is_the_default_or_the_only_one() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let default = at("heddled.sock");
        let found = || only_socket(&default, directory.path());
        assert_eq!(found().unwrap(), default);
        let _a = UnixListener::bind(at("a-b.sock")).unwrap();
        drop(UnixListener::bind(at("dead.sock")).unwrap());
        drop(UnixListener::bind(&default).unwrap());
        fs::write(at("a-b.txt"), "").unwrap();
        assert_eq!(found().unwrap(), at("a-b.sock"));
        let _c = UnixListener::bind(at("c.sock")).unwrap();
        let error = found().unwrap_err().to_string();
        let both = format!("{}, {}", at("a-b.sock").display(), at("c.sock").display());
        assert!(error.contains("--socket") && error.ends_with(&both), "{error}");
        fs::remove_file(&default).unwrap();
        let _default = UnixListener::bind(&default).unwrap();
        assert_eq!(found().unwrap(), default);
    }

    #[test]
    fn instance_is_a_single_name() {
        assert!(instance_name("blue").is_ok());
        for name in ["", "../x", "a/b", ".", ".."] {
            assert!(instance_name(name).is_err(), "{name}");
        }
    }
}
