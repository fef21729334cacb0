//! The lock by which a daemon is the only one of its network that uses a state directory.
//!
//! Two daemons of one network on one host have the same id and address, and so the same lease: each
//! would undo what the other does.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use heddle_node::Fatal;

/// Longest process id, in bytes.
const PID_LIMIT: u64 = 20;

/// Locks a state directory until the result is dropped. Returns None if the directory cannot be
/// written, which is no reason not to run.
///
/// # Errors
///
/// If another process holds the lock.
pub(crate) fn lock(directory: &Path, network: &str) -> Result<Option<File>, Fatal> {
    let path = directory.join("lock");
    let open = || {
        fs::create_dir_all(directory)?;
        File::options().create(true).truncate(false).read(true).write(true).open(&path)
    };
    let mut file = match open() {
        Ok(file) => file,
        Err(error) => {
            tracing::debug!(%error, "state: {} cannot be locked; continuing", path.display());
            return Ok(None);
        }
    };
    match file.try_lock() {
        Ok(()) => {
            // For the message of the next one. The lock holds without it.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(Some(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(PID_LIMIT).read_to_string(&mut holder);
            Err(format!(
                "another heddled of {network} runs on this host (process {}, which has locked {}); stop it, or give this \
                 daemon another --etcd-prefix",
                holder.trim(),
                path.display()
            )
            .into())
        }
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "state: {} cannot be locked; continuing", path.display());
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_daemon_of_a_network_is_refused_by_process() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("coreos.com-network");
        let first = lock(&state, "/coreos.com/network").unwrap();
        let error = lock(&state, "/coreos.com/network").unwrap_err().to_string();
        let process = format!("(process {}, ", std::process::id());
        assert!(error.contains(&process) && error.contains("/coreos.com/network"), "{error}");
        drop(first);
        assert!(lock(&state, "/coreos.com/network").unwrap().is_some());
    }

    #[test]
    fn state_directory_that_cannot_be_made_is_no_obstacle() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(lock(&file.path().join("state"), "/a").unwrap().is_none());
    }
}
