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

    /// Returns the directory below `--state-dir` that belongs to this network's daemon: two daemons
    /// on one host are two nodes.
    pub fn state_directory(&self) -> PathBuf {
        self.files.state_dir.join(directory_name(&self.lease.network_name()))
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(heddle_files::read_text(path, LIMIT)?)
}

fn identity(directory: &Path, network: &str) -> Result<Identity, IdentityError> {
    let path = directory.join(directory_name(network)).join("node-id");
    if let Some(id) = stored(&path)? {
        return Ok(Identity { id, unstored: None });
    }
    let machine = Path::new(MACHINE_ID);
    let machine_id = read(machine);
    let id = match former(directory, network, machine_id.as_deref().ok())? {
        Some(id) => id,
        None => NodeId::derive(&machine_id.map_err(failed("read", machine))?, network),
    };
    Ok(Identity { id, unstored: Some(path) })
}

/// Returns the name of a network's directory: that of `/a/b` is `a-b`. Hyphens of the network are
/// escaped, so that `/a-b` has another one, and dots that would lead elsewhere.
pub(crate) fn directory_name(network: &str) -> String {
    match network.trim_matches('/') {
        name @ ("." | "..") => name.replace('.', "%2E"),
        name => name.replace('%', "%25").replace('-', "%2D").replace('/', "-"),
    }
}

/// Returns the identity that heddled 0.1.0 stored, which did not escape hyphens. None if it belongs
/// to the network that has the directory now.
fn former(
    directory: &Path,
    network: &str,
    machine_id: Option<&str>,
) -> Result<Option<NodeId>, IdentityError> {
    let name = network.trim_matches('/').replace('/', "-");
    if Path::new(&name).file_name().is_none() {
        return Ok(None);
    }
    let id = stored(&directory.join(&name).join("node-id"))?;
    let owner = name.replace('-', "/").replace("%2D", "-").replace("%2E", ".").replace("%25", "%");
    let is_owners = |id: &NodeId| {
        let derived = |network: &str| machine_id.map(|machine| NodeId::derive(machine, network));
        [derived(&owner), derived(&format!("/{owner}"))].contains(&Some(id.clone()))
    };
    Ok(id.filter(|id| !is_owners(id)))
}

/// Returns the identity in a file. None if there is no such file.
fn stored(path: &Path) -> Result<Option<NodeId>, IdentityError> {
    match read(path) {
        Ok(text) => {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            text.trim().parse().map(Some).map_err(invalid).map_err(failed("use", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError { verb, path, source }
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
    fn networks_with_similar_names_have_identities_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = |network: &str| {
            let Identity { id, unstored } = identity(directory.path(), network).unwrap();
            let path = unstored.unwrap();
            assert!(path.starts_with(directory.path()) && !path.ends_with("../node-id"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, id.as_str()).unwrap();
            (id, path)
        };
        let networks = ["/a/b", "/a-b", "/a%2Db", "/a/b/c-d", "/a-b/c/d", "/..", "/.", "/"];
        let (ids, paths): (Vec<_>, Vec<_>) = networks.map(store).into_iter().unzip();
        for (number, network) in networks.iter().enumerate() {
            let again = identity(directory.path(), network).unwrap();
            assert_eq!((&again.id, again.unstored), (&ids[number], None));
            assert!(!ids[..number].contains(&ids[number]), "{network}");
            assert!(!paths[..number].contains(&paths[number]), "{network}");
        }
    }

    #[test]
    fn identity_stored_by_version_0_1_0_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("my-net")).unwrap();
        fs::write(directory.path().join("my-net/node-id"), "other\n").unwrap();
        let found = identity(directory.path(), "/my-net").unwrap();
        let path = directory.path().join("my%2Dnet/node-id");
        assert_eq!((found.id.as_str(), found.unstored), ("other", Some(path)));
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
