//! The TLS files for etcd.

use std::path::PathBuf;

use heddle_flags::LeaseFlags;
use heddle_store::etcd::PEM_LIMIT;

/// A file that a flag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CredentialFile {
    pub(crate) flag: &'static str,
    pub(crate) path: PathBuf,
    /// Content, or the reason why it cannot be read.
    pub(crate) contents: Result<Vec<u8>, String>,
}

/// The files that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) authorities: Option<CredentialFile>,
    pub(crate) certificate: Option<CredentialFile>,
    pub(crate) key: Option<CredentialFile>,
}

/// Reads the files.
pub(crate) fn read(flags: &LeaseFlags) -> Credentials {
    let file = |flag, path: &Option<PathBuf>| {
        let path = path.clone().filter(|path| !path.as_os_str().is_empty())?;
        let contents = heddle_files::read(&path, PEM_LIMIT);
        let contents = contents.map_err(|error| error.reason.to_string());
        Some(CredentialFile { flag, path, contents })
    };
    Credentials {
        authorities: file("--etcd-cafile", &flags.etcd_cafile),
        certificate: file("--etcd-certfile", &flags.etcd_certfile),
        key: file("--etcd-keyfile", &flags.etcd_keyfile),
    }
}
