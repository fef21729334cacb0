//! The path of the control socket.

use std::path::{Path, PathBuf};

use crate::Flags;
use crate::identity::directory_name;

/// The directory of the sockets.
const DIRECTORY: &str = "/run/heddle";

/// The network of flannel's default `--etcd-prefix`.
const USUAL_NETWORK: &str = "/coreos.com/network";

/// The socket of a daemon for [`USUAL_NETWORK`].
const USUAL_SOCKET: &str = "heddled.sock";

impl Flags {
    /// Returns the path of the control socket: `--control-socket`, or else one that depends on the
    /// network, so that daemons for several networks need no flag to run side by side.
    pub fn control_socket(&self) -> PathBuf {
        let network = self.lease.network_name();
        self.control.control_socket.clone().unwrap_or_else(|| {
            let file = match (network.as_str(), directory_name(&network)) {
                (USUAL_NETWORK, _) => USUAL_SOCKET.to_owned(),
                // `directory_name` never has this for another network: it escapes each `%`.
                (_, name) if name == "heddled" => "%68eddled.sock".to_owned(),
                (_, name) => format!("{name}.sock"),
            };
            Path::new(DIRECTORY).join(file)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io;

    use super::*;

    fn socket(arguments: &[&str]) -> PathBuf {
        let arguments = ["heddled"].iter().chain(arguments).map(Into::into);
        let missing = |_: &Path| Err(io::ErrorKind::NotFound.into());
        Flags::read(arguments, |_| None, missing).unwrap().control_socket()
    }

    #[test]
    fn each_network_has_a_socket_of_its_own() {
        let networks = [
            &[][..],
            &["--etcd-prefix=/coreos.com/network/b"],
            &["--etcd-prefix=/a/b"],
            &["--etcd-prefix=/a-b"],
            &["--store=dir:/a/c"],
            &["--etcd-prefix=/heddled"],
            &["--etcd-prefix=/%68eddled"],
        ];
        let sockets: BTreeSet<_> = networks.iter().map(|flags| socket(flags)).collect();
        assert_eq!(sockets.len(), networks.len(), "{sockets:?}");
        assert_eq!(socket(&[]), Path::new("/run/heddle/heddled.sock"));
        assert_eq!(socket(&["--etcd-prefix=/coreos.com/network/"]), socket(&[]));
        assert_eq!(socket(&["--etcd-prefix=/a/b"]), Path::new("/run/heddle/a-b.sock"));
    }

    #[test]
    fn given_socket_is_used_for_any_network() {
        let given = "--control-socket=/x.sock";
        assert_eq!(socket(&[given, "--etcd-prefix=/a/b"]), Path::new("/x.sock"));
    }
}
