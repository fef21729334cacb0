//! Selection of the lease store (`--store`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::{DirectoryStore, EtcdOptions, EtcdStore, LeaseStore, StoreError};

/// The value of `--store`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreConfig {
    /// `etcd`: the cluster named by the `--etcd-…` flags.
    #[default]
    Etcd,
    /// `dir:PATH`: a directory of lease files.
    Directory(PathBuf),
}

impl StoreConfig {
    /// Creates the store. Does not connect and does not read any file yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when flags contradict each other.
    pub fn open(&self, etcd: EtcdOptions) -> Result<Arc<dyn LeaseStore>, StoreError> {
        Ok(match self {
            Self::Etcd => Arc::new(EtcdStore::new(etcd)?),
            Self::Directory(path) => Arc::new(DirectoryStore::new(path)),
        })
    }
}

impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd => f.write_str("etcd"),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

/// A `--store` value that names no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a lease store: expected `etcd`, or `dir:PATH` with an absolute path")]
pub struct InvalidStoreConfig(pub String);

impl FromStr for StoreConfig {
    type Err = InvalidStoreConfig;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "etcd" => Ok(Self::Etcd),
            Some(("dir", path)) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            _ => Err(InvalidStoreConfig(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_config_display_parses_back() {
        for text in ["etcd", "dir:/var/lib/heddle/leases", "dir:/a:b"] {
            assert_eq!(text.parse::<StoreConfig>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn store_config_unknown_is_rejected_with_expected_forms() {
        for text in ["", "etcd:", "dir", "dir:", "dir:leases", "consul", "Etcd"] {
            let error = text.parse::<StoreConfig>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "`{text}` is not a lease store: expected `etcd`, or `dir:PATH` with an absolute path"
                )
            );
        }
    }
}
