//! The store through which a lab's daemons share the network config and their leases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Error, Etcd, PREFIX};

/// The shared store.
#[derive(Debug)]
pub enum Store {
    /// A real etcd.
    Etcd(Etcd),
    /// A directory: `config`, and one file for each lease below `subnets/`.
    Directory(PathBuf),
}

impl Store {
    /// Creates an empty directory store.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn directory(path: PathBuf) -> Result<Self, Error> {
        let subnets = path.join("subnets");
        std::fs::create_dir_all(&subnets)
            .map_err(Error::io(format!("creating {}", subnets.display())))?;
        Ok(Self::Directory(path))
    }

    /// Returns the flags that make a daemon use this store.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Etcd(etcd) => vec![format!("--etcd-endpoints={}", etcd.endpoints())],
            Self::Directory(path) => vec![format!("--store=dir:{}", path.display())],
        }
    }

    /// Sets the network config.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] or [`Error::Io`].
    pub fn put_config(&self, config: &str) -> Result<(), Error> {
        match self {
            Self::Etcd(etcd) => etcd.put(&format!("{PREFIX}/config"), config),
            Self::Directory(path) => replace(&path.join("config"), config),
        }
    }

    /// Returns all leases by key.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] or [`Error::Io`].
    pub fn leases(&self) -> Result<BTreeMap<String, String>, Error> {
        match self {
            Self::Etcd(etcd) => etcd.leases(),
            Self::Directory(path) => files(&path.join("subnets")),
        }
    }
}

/// Replaces a file atomically, so that no reader sees a part of it.
fn replace(path: &Path, contents: &str) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, contents)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(Error::io(format!("writing {}", path.display())))
}

/// Reads the files of a directory by name. Skips hidden files, which are temporary.
fn files(directory: &Path) -> Result<BTreeMap<String, String>, Error> {
    let read = || {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                files.insert(name, std::fs::read_to_string(entry.path())?);
            }
        }
        Ok(files)
    };
    read().map_err(Error::io(format!("reading {}", directory.display())))
}
