//! The daemon, as systemd and its control socket see it.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use heddle_control::{CallError, Client, Status};

/// How long the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// The daemon.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Daemon {
    /// It answers.
    Answers(Box<Status>),
    /// Nobody is behind the socket, or there is none.
    Absent,
    /// Something is behind the socket, and does not answer as it should.
    Silent(String),
    /// This user may not ask.
    Unknown(String),
}

/// A unit of systemd's that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// `heddled.service`.
    pub(crate) name: String,
    /// Whether it is started at boot.
    pub(crate) enabled: bool,
    /// `active`, `activating`, `failed`, `inactive` …
    pub(crate) state: String,
    /// Why it ended, if it failed: `exit-code`, `watchdog` …
    pub(crate) result: String,
}

/// Asks the daemon behind a socket.
pub(crate) async fn daemon(socket: &Path) -> Daemon {
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

/// Asks systemd for a unit. `None`: it does not know it, or does not run here.
pub(crate) async fn unit(name: &str) -> Option<Unit> {
    // As sd_booted(3) has it.
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
    fn what_systemctl_prints_is_read() {
        let printed =
            "LoadState=loaded\nUnitFileState=enabled\nActiveState=failed\nResult=watchdog\n";
        let unit = parse("heddled.service", printed).unwrap();
        assert!(unit.enabled);
        assert_eq!((unit.state.as_str(), unit.result.as_str()), ("failed", "watchdog"));
        let unknown = "LoadState=not-found\nUnitFileState=\nActiveState=inactive\nResult=success\n";
        assert_eq!(parse("heddled.service", unknown), None);
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_means_that_nobody_is() {
        assert_eq!(daemon(Path::new("/no/such/socket")).await, Daemon::Absent);
    }
}
