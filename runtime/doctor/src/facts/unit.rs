//! The daemon's state according to systemd and its control socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_control::{CallError, Client, DEFAULT_SOCKET, DIRECTORY, Status};
use heddle_core::node::NodeId;
use heddle_flags::Flags;

/// Time limit for the daemon to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// State of the daemon.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Daemon {
    /// The daemon answers.
    Answers(Box<Status>),
    /// No process listens on the socket, or it does not exist.
    Absent,
    /// A process listens on the socket, and does not answer properly.
    Silent(String),
    /// This user has no access to the socket.
    Unknown(String),
}

impl Daemon {
    /// Returns the id of the node, if the daemon answers and is in the network of these flags. The
    /// daemon may have another `--node-id` than they have.
    pub(crate) fn node_id(&self, flags: &Flags) -> Option<NodeId> {
        match self {
            Self::Answers(status) if status.network == flags.lease.network_name() => {
                status.node.id.parse().ok()
            }
            _ => None,
        }
    }
}

/// A systemd unit that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Name: `heddled.service`.
    pub(crate) name: String,
    /// True if it is started at boot.
    pub(crate) enabled: bool,
    /// Active state: `active`, `activating`, `failed`, `inactive` …
    pub(crate) state: String,
    /// Reason of a failure: `exit-code`, `watchdog` …
    pub(crate) result: String,
}

/// Queries the daemon with these flags. Without `--control-socket`, that is the one at the network's
/// socket or at that of the packaged unit, whose environment names its socket.
pub(crate) async fn daemon_of(flags: &Flags) -> Daemon {
    let found = daemon(&flags.control_socket()).await;
    if found != Daemon::Absent || flags.control.control_socket.is_some() {
        return found;
    }
    let usual = daemon(Path::new(DEFAULT_SOCKET)).await;
    if is_of(&usual, &flags.lease.network_name()) { usual } else { found }
}

/// Longest list of other daemons.
const OTHERS: usize = 16;

/// Returns the status of the other daemons of this host that answer.
pub(crate) async fn others(flags: &Flags, own: &Daemon) -> Vec<Status> {
    let own_socket = flags.control_socket();
    let directories = [Some(Path::new(DIRECTORY)), own_socket.parent()];
    let entries = directories.into_iter().flatten().filter_map(|it| std::fs::read_dir(it).ok());
    let mut sockets: Vec<_> = entries.flatten().flatten().map(|entry| entry.path()).collect();
    sockets.retain(|path| path.extension().is_some_and(|extension| extension == "sock"));
    sockets.sort();
    sockets.dedup();
    let mut found = Vec::new();
    for socket in sockets.into_iter().filter(|path| *path != own_socket).take(OTHERS) {
        if let Daemon::Answers(status) = daemon(&socket).await
            && !is_same(own, &status)
        {
            found.push(*status);
        }
    }
    found
}

/// Returns true if the status is that of this daemon, which may have been found at another socket
/// than its flags say.
fn is_same(own: &Daemon, status: &Status) -> bool {
    matches!(own, Daemon::Answers(own) if own.network == status.network)
}

/// Traces of an instance of the packaged unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) name: String,
    /// Files that configure it, whether or not they exist.
    pub(crate) sources: Vec<PathBuf>,
    /// True if one of these exists, or a file that it writes.
    pub(crate) has_files: bool,
    /// Names of the instances that have an environment file.
    pub(crate) others: Vec<String>,
}

/// Beginning of the names of instances' environment files.
const INSTANCE_FILE: &str = "/etc/default/heddled@";

/// Returns the traces of the instance that a unit is one of. None for the unit without a name.
pub(crate) fn instance(unit: &str, flags: &Flags) -> Option<Instance> {
    let name = unit.strip_prefix("heddled@")?.strip_suffix(".service")?.to_owned();
    let sources = vec![
        PathBuf::from(format!("{INSTANCE_FILE}{name}")),
        PathBuf::from(format!("/etc/systemd/system/{unit}.d")),
    ];
    let written = [flags.files.subnet_env().to_owned(), flags.control_socket()];
    let has_files = sources.iter().chain(&written).any(|path| path.exists());
    let entries = std::fs::read_dir("/etc/default").into_iter().flatten().flatten();
    let of_entry = |entry: std::fs::DirEntry| {
        let path = entry.path();
        path.to_str()?.strip_prefix(INSTANCE_FILE).map(str::to_owned)
    };
    let mut others: Vec<_> = entries.filter_map(of_entry).collect();
    others.sort();
    Some(Instance { name, sources, has_files, others })
}

/// Returns true if a daemon answers, and is in this network.
fn is_of(daemon: &Daemon, network: &str) -> bool {
    matches!(daemon, Daemon::Answers(status) if status.network == network)
}

/// Queries the daemon behind a socket.
async fn daemon(socket: &Path) -> Daemon {
    match Client::new(socket).with_limit(LIMIT).status().await {
        Ok(status) => Daemon::Answers(Box::new(status)),
        Err(CallError::Missing(_) | CallError::NotRunning(_)) => Daemon::Absent,
        Err(CallError::Io { source, .. }) if source.kind() == ErrorKind::NotADirectory => {
            Daemon::Absent
        }
        Err(error @ CallError::Denied { .. }) => Daemon::Unknown(error.to_string()),
        Err(error) => Daemon::Silent(error.to_string()),
    }
}

/// Queries systemd for a unit. `None` if systemd does not know it, or does not run here.
pub(crate) async fn unit(name: &str) -> Option<Unit> {
    // The test of sd_booted(3).
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let properties = "--property=LoadState,UnitFileState,ActiveState,Result";
    parse(name, &super::printed("systemctl", &["show", properties, name]).await?)
}

fn parse(name: &str, printed: &str) -> Option<Unit> {
    let property = |wanted: &str| {
        let mut lines = printed.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
    };
    property("LoadState").filter(|state| state == "loaded")?;
    Some(Unit {
        name: name.to_owned(),
        enabled: property("UnitFileState")?.starts_with("enabled"),
        state: property("ActiveState")?,
        result: property("Result")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemctl_output_is_parsed() {
        let printed =
            "LoadState=loaded\nUnitFileState=enabled\nActiveState=failed\nResult=watchdog\n";
        let unit = parse("heddled.service", printed).unwrap();
        assert!(unit.enabled);
        assert_eq!((unit.state.as_str(), unit.result.as_str()), ("failed", "watchdog"));
        let unknown = "LoadState=not-found\nUnitFileState=\nActiveState=inactive\nResult=success\n";
        assert_eq!(parse("heddled.service", unknown), None);
    }

    #[test]
    fn daemon_of_another_network_is_another_daemon() {
        let status = Status { network: "/a/b".to_owned(), ..Status::default() };
        let answers = Daemon::Answers(Box::new(status));
        assert!(is_of(&answers, "/a/b") && !is_of(&answers, "/a/c"));
        assert!(!is_of(&Daemon::Absent, "/a/b"));
    }

    #[test]
    fn node_id_is_that_of_the_daemon_in_the_same_network() {
        let flags = |prefix: &str| {
            let arguments = ["heddled", prefix, "--node-id=flags"].map(Into::into);
            Flags::read(arguments, |_| None, |_| Err(ErrorKind::NotFound.into())).unwrap()
        };
        let mut status = Status { network: "/a/b".to_owned(), ..Status::default() };
        status.node.id = "daemon".to_owned();
        let daemon = Daemon::Answers(Box::new(status));
        let id = daemon.node_id(&flags("--etcd-prefix=/a/b"));
        assert_eq!(id.unwrap().as_str(), "daemon");
        assert_eq!(daemon.node_id(&flags("--etcd-prefix=/a")), None);
        assert_eq!(Daemon::Absent.node_id(&flags("--etcd-prefix=/a/b")), None);
    }

    #[tokio::test]
    async fn missing_socket_means_absent_daemon() {
        assert_eq!(daemon(Path::new("/no/such/socket")).await, Daemon::Absent);
    }
}
