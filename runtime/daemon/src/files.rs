//! The few files that the daemon itself reads and writes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use heddle_core::node::NodeId;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}: {source}", path.display())]
pub(crate) struct FileError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { verb, path: path.to_owned(), source }
}

/// Makes a file hold `contents`, in one step: whoever reads it sees all of the old or all of the new. Its directory is
/// made if need be. A file that is right already is left alone. Returns whether it was written.
///
/// # Errors
///
/// [`FileError`], naming the file; what was there before is untouched.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32) -> Result<bool, FileError> {
    let right = fs::read(path).is_ok_and(|found| found == contents)
        && fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o7777 == mode);
    if right {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("make directory", directory))?;
    let replace = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(contents)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    replace().map_err(failed("write", path))?;
    Ok(true)
}

/// This node's identity: as stored in `directory` by an earlier start, else derived from the machine's and stored.
///
/// # Errors
///
/// [`FileError`], when neither a stored identity nor the machine's can be read. That the derived one cannot be stored
/// is only a warning, since it will be the same next time.
pub(crate) fn node_id(directory: &Path, network: &str) -> Result<NodeId, FileError> {
    // One directory a network, because two daemons of one host are two nodes.
    let name = network.trim_matches('/').replace('/', "-");
    let path = directory.join(name).join("node-id");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            return text.trim().parse().map_err(invalid).map_err(failed("use", &path));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", &path)(error)),
    }
    let machine = Path::new("/etc/machine-id");
    let machine_id = fs::read_to_string(machine).map_err(failed("read", machine))?;
    let id = NodeId::derive(&machine_id, network);
    if let Err(error) = write(&path, format!("{id}\n").as_bytes(), 0o644) {
        tracing::warn!("the node id is not stored: {error}");
    }
    Ok(id)
}

/// This node's name, for people.
pub(crate) fn node_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Whether this process may change the network of its namespace (`CAP_NET_ADMIN`, capabilities(7)).
pub(crate) fn has_net_admin() -> bool {
    const CAP_NET_ADMIN: u64 = 12;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    // Where it cannot be told, the kernel will say so.
    bits.is_none_or(|bits| bits & (1 << CAP_NET_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_if_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/flannel/subnet.env");
        assert!(write(&path, b"one", 0o644).unwrap());
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!write(&path, b"one", 0o644).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("there");
        fs::create_dir(&path).unwrap();
        let error = write(&path, b"x", 0o644).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
    }

    #[test]
    fn an_identity_is_kept_once_it_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let first = node_id(directory.path(), "/coreos.com/network").unwrap();
        let path = directory.path().join("coreos.com-network/node-id");
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{first}\n"));
        fs::write(&path, "other\n").unwrap();
        assert_eq!(node_id(directory.path(), "/coreos.com/network").unwrap().as_str(), "other");
        assert_ne!(node_id(directory.path(), "/else").unwrap().as_str(), "other");
        fs::write(&path, "not an id\n").unwrap();
        let error = node_id(directory.path(), "/coreos.com/network").unwrap_err().to_string();
        assert!(error.contains("node-id") && error.contains("not a node id"), "{error}");
    }
}
