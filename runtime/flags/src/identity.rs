//! This node's identity if `--node-id` does not set it: the one that a previous run stored, or one
//! derived from the machine id.

use std::io;
use std::path::{Path, PathBuf};

use heddle_core::node::NodeId;

use crate::Flags;

/// Size limit of a file with an identity, in bytes.
const LIMIT: u64 = 4096;

/// File with the machine id (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// A node's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's id.
    pub id: NodeId,
    /// The file that the identity should be stored in, if it was derived: the node keeps it even if
    /// the machine id changes.
    pub unstored: Option<PathBuf>,
}

/// Neither the stored identity nor the machine id can be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}: {source}", path.display())]
pub struct IdentityError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Flags {
    /// Returns this node's identity. Reads files, and writes none.
    ///
    /// # Errors
    ///
    /// [`IdentityError`], naming the file.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        match &self.lease.node_id {
            Some(id) => Ok(Identity { id: id.clone(), unstored: None }),
            None => identity(&self.files.state_dir, &self.lease.network_name()),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(heddle_files::read_text(path, LIMIT)?)
}

fn identity(directory: &Path, network: &str) -> Result<Identity, IdentityError> {
    // One directory per network, because two daemons on one host are two nodes.
    let name = network.trim_matches('/').replace('/', "-");
    let path = directory.join(name).join("node-id");
    let failed = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError { verb, path, source }
    };
    match read(&path) {
        Ok(text) => {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let id = text.trim().parse().map_err(invalid).map_err(failed("use", &path))?;
            Ok(Identity { id, unstored: None })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let machine = Path::new(MACHINE_ID);
            let machine_id = read(machine).map_err(failed("read", machine))?;
            Ok(Identity { id: NodeId::derive(&machine_id, network), unstored: Some(path) })
        }
        Err(error) => Err(failed("read", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn stored_identity_takes_precedence() {
        let directory = tempfile::tempdir().unwrap();
        let first = identity(directory.path(), "/coreos.com/network").unwrap();
        let path = directory.path().join("coreos.com-network/node-id");
        assert_eq!(first.unstored, Some(path.clone()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "other\n").unwrap();
        let second = identity(directory.path(), "/coreos.com/network").unwrap();
        assert_eq!((second.id.as_str(), second.unstored), ("other", None));
        assert_ne!(identity(directory.path(), "/else").unwrap().id.as_str(), "other");
        fs::write(&path, "not an id\n").unwrap();
        let error = identity(directory.path(), "/coreos.com/network").unwrap_err().to_string();
        assert!(error.contains("node-id") && error.contains("not a node id"), "{error}");
    }

    #[test]
    fn stored_identity_not_a_small_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x/node-id");
        fs::create_dir_all(&path).unwrap();
        let error = || identity(directory.path(), "/x").unwrap_err().to_string();
        let expected = format!("cannot read {}: it is a directory", path.display());
        assert!(error().starts_with(&expected), "{}", error());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, " ".repeat(4097)).unwrap();
        assert!(error().contains("it has more than 4 KiB"), "{}", error());
    }
}
