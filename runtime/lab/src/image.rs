//! The file system image of machines.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::{Error, run};

/// The Debian release of images.
const RELEASE: &str = "bookworm";

/// The installed packages: systemd, and the basics of a server that is on the network and accepts
/// logins.
const INSTALLED: [&str; 13] = [
    "busybox-static",
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "nftables",
    "openssh-server",
    "openssl",
    "procps",
    "systemd-sysv",
    "tcpdump",
    "udev",
];

/// Packages that machines can install without a mirror, from apt's cache.
const DOWNLOADED: [&str; 4] = ["docker.io", "etcd-client", "etcd-server", "iptables"];

/// The last step, with the image's directory as `$1`.
///
/// The package lists stay, because installing from the cache needs them. The host name and name
/// servers that mmdebstrap copied from this machine are removed. All machines have the same keys,
/// so root of one machine can log in to all others.
const FINISH: &str = r#"set -e
chroot "$1" apt-get clean
chroot "$1" apt-get install --download-only -y DOWNLOADED
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' > "$1/etc/hosts"
: > "$1/etc/hostname"
: > "$1/etc/resolv.conf"
rm "$1"/etc/ssh/ssh_host_*
chroot "$1" ssh-keygen -q -t ed25519 -N '' -C lab -f /etc/ssh/ssh_host_ed25519_key
install -d -m 0700 "$1/root/.ssh"
cp -p "$1/etc/ssh/ssh_host_ed25519_key" "$1/root/.ssh/id_ed25519"
cp "$1/etc/ssh/ssh_host_ed25519_key.pub" "$1/root/.ssh/authorized_keys"
sed 's/^/* /' "$1/etc/ssh/ssh_host_ed25519_key.pub" > "$1/root/.ssh/known_hosts"
"#;

/// A pristine Debian. Created once, and cached.
#[derive(Clone, Debug)]
pub struct Image {
    directory: PathBuf,
}

impl Image {
    /// Takes the image from a cache directory, or creates it with `mmdebstrap`, from the sources of
    /// this machine's own packages, which takes about a minute. Concurrent callers wait for each
    /// other.
    ///
    /// # Errors
    ///
    /// Those of `mmdebstrap`, which needs root and a Debian mirror among apt's sources, and
    /// [`Error::Io`].
    pub fn debian(cache: &Path) -> Result<Self, Error> {
        let finish = FINISH.replace("DOWNLOADED", &DOWNLOADED.join(" "));
        let key = key(&[RELEASE, &INSTALLED.join(","), &finish]);
        let directory = cache.join(format!("debian-{RELEASE}-{key}"));
        let failed = |what: &str| Error::io(format!("{what} {}", directory.display()));
        std::fs::create_dir_all(cache).map_err(failed("creating the directory of"))?;
        let lock = File::create(directory.with_extension("lock")).map_err(failed("locking"))?;
        lock.lock().map_err(failed("locking"))?;
        if !directory.exists() {
            // An interrupted run may have left an unfinished image.
            let unfinished = directory.with_extension("new");
            match std::fs::remove_dir_all(&unfinished) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("removing what is left of")(error));
                }
                _ => {}
            }
            make(&unfinished, &finish)?;
            std::fs::rename(&unfinished, &directory).map_err(failed("naming"))?;
        }
        Ok(Self { directory })
    }

    /// Returns its root directory, which must not be modified.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Returns the cache key, which depends only on the ingredients.
fn key(ingredients: &[&str]) -> String {
    let digest = Sha256::digest(ingredients.join("\n"));
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make(directory: &Path, finish: &str) -> Result<(), Error> {
    let mut command = Command::new("mmdebstrap");
    command
        .arg("--variant=minbase")
        .arg(format!("--include={}", INSTALLED.join(",")))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        // No machine outlives a power failure anyway.
        .arg("--dpkgopt=force-unsafe-io")
        .args(["--skip=cleanup/apt/lists", "--skip=cleanup/apt/cache"])
        .arg(format!("--customize-hook={finish}"))
        .arg(RELEASE)
        .arg(directory)
        .args(sources()?);
    run(&mut command).map(drop)
}

/// Returns the sources of this machine's Debian packages as lines of `sources.list`. Empty if
/// unknown: then mmdebstrap uses its default.
fn sources() -> Result<Vec<String>, Error> {
    let lines = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
        "Origin: Debian",
    ]))?;
    Ok(lines.lines().filter(|line| line.contains(RELEASE)).map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_ingredients_change_image_key() {
        assert_eq!(key(&["bookworm", "dbus"]), key(&["bookworm", "dbus"]));
        assert_ne!(key(&["bookworm", "dbus"]), key(&["bookworm", "dbus,udev"]));
    }
}
