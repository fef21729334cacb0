//! The command line of a host's daemon.

use std::path::Path;
use std::process::Command;

use crate::{Daemon, Host, Store};

impl Host {
    /// Builds the command line of its daemon. Default paths below `/run` and `/var` are moved to
    /// [`directory`](Self::directory), since all hosts of a lab share one file system and one
    /// machine id.
    pub fn heddled(&self, program: &Path, store: &Store) -> Command {
        let flag =
            |name: &str, path: &str| format!("{name}={}", self.directory.join(path).display());
        let mut command = Command::new(program);
        command
            .arg(format!("--node-id={}", self.name))
            .arg(format!("--subnet-file={}", self.subnet_file().display()))
            .arg(flag("--state-dir", "state"))
            .arg(flag("--cache-dir", "cache"))
            .arg(format!("--control-socket={}", self.control_socket().display()))
            .args([
                "--healthz-ip=127.0.0.1".to_owned(),
                format!("--healthz-port={}", Daemon::HEALTH_PORT),
            ])
            .args(store.arguments());
        command
    }
}
