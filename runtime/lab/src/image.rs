//! The file system that machines start with.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::{Error, run};

/// The release that images are made of.
const RELEASE: &str = "bookworm";

/// What is installed: systemd, and what a server has that somebody put on the network and can log in to.
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

/// What machines can install although they reach no mirror: it lies in apt's cache.
const DOWNLOADED: [&str; 4] = ["docker.io", "etcd-client", "etcd-server", "iptables"];

/// What is done at last, with the image's directory as `$1`.
///
/// The lists of packages stay, because installing from the cache needs them. What mmdebstrap took from this machine,
/// its name and its name servers, goes. Every machine lets root of every other one in: all have the same keys.
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

/// A Debian that nobody has changed yet. Made once, and kept.
#[derive(Clone, Debug)]
pub struct Image {
    directory: PathBuf,
}

impl Image {
    /// Takes it from a cache directory, or makes it: with `mmdebstrap`, from where this machine's own packages come
    /// from, which takes about a minute. Others who want it at the same time wait.
    ///
    /// # Errors
    ///
    /// As of `mmdebstrap`, which needs root and a Debian mirror among apt's sources, and [`Error::Io`].
    pub fn debian(cache: &Path) -> Result<Self, Error> {
        let finish = FINISH.replace("DOWNLOADED", &DOWNLOADED.join(" "));
        let key = key(&[RELEASE, &INSTALLED.join(","), &finish]);
        let directory = cache.join(format!("debian-{RELEASE}-{key}"));
        let failed = |what: &str| Error::io(format!("{what} {}", directory.display()));
        std::fs::create_dir_all(cache).map_err(failed("creating the directory of"))?;
        let lock = File::create(directory.with_extension("lock")).map_err(failed("locking"))?;
        lock.lock().map_err(failed("locking"))?;
        if !directory.exists() {
            // What a run that was ended has left may be in the way.
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

    /// Its root directory, which must not be changed.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The same for the same ingredients.
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
        // No machine outlives a power cut.
        .arg("--dpkgopt=force-unsafe-io")
        .args(["--skip=cleanup/apt/lists", "--skip=cleanup/apt/cache"])
        .arg(format!("--customize-hook={finish}"))
        .arg(RELEASE)
        .arg(directory)
        .args(sources()?);
    run(&mut command).map(drop)
}

/// Where Debian's packages come from on this machine, as a line of `sources.list` each. None if that is not known:
/// mmdebstrap has a default.
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
    fn other_ingredients_make_another_image() {
        assert_eq!(key(&["bookworm", "dbus"]), key(&["bookworm", "dbus"]));
        assert_ne!(key(&["bookworm", "dbus"]), key(&["bookworm", "dbus,udev"]));
    }
}
