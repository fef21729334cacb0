//! A host with state that must survive a hostile plugin, and the resource usage of a process.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_lab::{Host, next_datagram, wait_until};
use serde_json::Value;

use crate::{PROTOCOL, SOON};

/// Devices of other owners. `heddle0` has a name that a plugin may ask for.
const FOREIGN: &str = "\
link add name br0 type bridge
link set br0 up
address add 172.30.0.1/24 dev br0
link add name vxlan100 type vxlan id 100 dev eth0 dstport 4789 nolearning
link set vxlan100 up
link add name heddle0 type bridge
link set heddle0 up
address add 192.0.2.1/32 dev eth0
route add 198.51.100.0/24 via 192.168.255.254 proto static
route add blackhole 203.0.113.0/24
neighbour add 192.168.255.254 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
rule add from 192.0.2.0/24 table 100
route add default via 192.168.255.254 table 100
";

/// Devices that the plugin under test may have created.
const ITS: [&str; 3] = ["heddle1", "heddle2", "flannel.1"];

/// Sysctls, of all devices and global.
const SETTINGS: [&str; 3] = ["ipv4/ip_forward", "ipv4/conf", "ipv6/conf"];

/// A host with devices, addresses, routes, sysctls and files that no plugin may touch, and a
/// listener on port 53.
#[derive(Debug)]
pub struct Victim {
    /// The host.
    pub host: Host,
    resolver: UdpSocket,
    before: State,
}

/// State that must not change.
#[derive(Debug, PartialEq)]
struct State {
    /// Output of `ip` and `bridge`.
    kernel: BTreeMap<&'static str, Vec<Value>>,
    settings: BTreeMap<PathBuf, String>,
    /// File contents, or the target of a symlink.
    files: BTreeMap<PathBuf, String>,
}

impl Victim {
    /// Adds foreign devices, files and the listener to a host, and records its state.
    pub fn new(host: Host) -> Self {
        host.namespace().batch("ip", FOREIGN).unwrap();
        let file = |name: &str| host.directory().join(name);
        for directory in ["private", "run/flannel"] {
            fs::create_dir_all(file(directory)).unwrap();
        }
        fs::write(file("private/passwd"), "root:x:0:0\n").unwrap();
        fs::write(file("run/present"), "mine\n").unwrap();
        symlink("../private", file("run/link")).unwrap();
        let resolver = host.namespace().udp_socket(([0, 0, 0, 0], 53).into()).unwrap();
        let before = State::of(&host, true);
        Self { host, resolver, before }
    }

    /// Asserts that nothing was removed or changed, and nothing added except a device with its
    /// objects; with `untouched`, not even that.
    pub fn check(&self, untouched: bool) {
        let now = State::of(&self.host, untouched);
        for (what, before) in &self.before.kernel {
            let now = &now.kernel[what];
            let lost: Vec<_> = before.iter().filter(|value| !now.contains(value)).collect();
            let won: Vec<_> = now.iter().filter(|value| !before.contains(value)).collect();
            assert!(lost.is_empty() && won.is_empty(), "{what}: {lost:#?} are now {won:#?}");
        }
        for (path, before) in &self.before.settings {
            assert_eq!(now.settings.get(path), Some(before), "{}", path.display());
        }
        // A file list that cannot be written as a whole is retried now and then under temporary
        // names, and rolled back.
        wait_until("its files as they were", SOON, || {
            let (before, now) = (&self.before.files, files(&self.host));
            let other = |path: &&PathBuf| before.get(*path) != now.get(*path);
            let others: Vec<_> = before.keys().chain(now.keys()).filter(other).collect();
            let on_its_way =
                |path: &&PathBuf| path.file_name().unwrap().as_encoded_bytes().starts_with(b".tmp");
            assert!(others.iter().all(on_its_way), "{others:?}");
            if others.is_empty() { Ok(()) } else { Err(format!("{others:?}")) }
        })
        .unwrap();
        let asker = self.host.namespace().udp_socket(([127, 0, 0, 1], 0).into()).unwrap();
        asker.send_to(b"?", ("127.0.0.1", 53)).unwrap();
        let question = next_datagram(&self.resolver, Duration::from_secs(5)).unwrap();
        assert_eq!(question, Some((asker.local_addr().unwrap(), b"?".to_vec())));
    }
}

impl State {
    fn of(host: &Host, whole: bool) -> Self {
        let kernel = [
            ("devices", "ip", "-d -j link show"),
            ("addresses", "ip", "-j address show"),
            ("routes", "ip", "-j -4 route show table all"),
            ("routes of IPv6", "ip", "-j -6 route show"),
            ("neighbours", "ip", "-j neighbour show nud permanent"),
            ("rules", "ip", "-j rule show"),
            ("FDB", "bridge", "-j fdb show"),
        ];
        let kernel = kernel.map(|(what, program, arguments)| {
            let mut found: Vec<Value> = host.namespace().json(program, arguments).unwrap();
            for value in &mut found {
                // The kernel assigns link-local addresses, and detects carriers, asynchronously.
                if let Some(addresses) = value["addr_info"].as_array_mut() {
                    addresses.retain(|address| address["scope"] != "link");
                }
                if let Some(link) = value.as_object_mut()
                    && link.remove("operstate").is_some()
                {
                    link["flags"].as_array_mut().unwrap().retain(|flag| flag == "UP");
                    if let Some(options) = value.pointer_mut("/linkinfo/info_data") {
                        options.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_timer"));
                    }
                }
            }
            found.retain(|value| {
                let device = value["ifname"].as_str().or(value["dev"].as_str()).unwrap_or_default();
                let text = |key: &str| value[key].as_str().unwrap_or_default();
                let link_local = text("dst").starts_with("fe80");
                // The same goes for multicast groups that the kernel joins.
                let group =
                    ["33:33:", "01:00:5e:"].iter().any(|begin| text("mac").starts_with(begin));
                let its = ITS.contains(&device) || text("protocol") == PROTOCOL;
                !link_local && !group && (whole || !its)
            });
            (what, found)
        });
        let mut settings = BTreeMap::new();
        host.namespace()
            .enter(|| {
                for root in SETTINGS {
                    read_all(&Path::new("/proc/sys/net").join(root), &mut settings);
                }
            })
            .unwrap();
        Self { kernel: kernel.into(), settings, files: files(host) }
    }
}

/// Reads the protected files, except those of the daemon itself.
fn files(host: &Host) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for name in ["private", "run"] {
        read_all(&host.directory().join(name), &mut files);
    }
    read_all(Path::new("/etc/passwd"), &mut files);
    let own = [host.subnet_file(), host.control_socket()];
    files.retain(|path, _| !own.contains(path));
    files
}

/// Reads a file, or all files below a directory. Skips unreadable ones.
fn read_all(path: &Path, files: &mut BTreeMap<PathBuf, String>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if metadata.is_symlink() {
        let target = fs::read_link(path).unwrap();
        files.insert(path.to_owned(), format!("-> {}", target.display()));
    } else if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            read_all(&entry.path(), files);
        }
    } else if let Ok(contents) = fs::read(path) {
        files.insert(path.to_owned(), String::from_utf8_lossy(&contents).into_owned());
    }
}

/// Returns the CPU time that a process has used.
pub fn cpu_time(pid: u32) -> Duration {
    /// `USER_HZ`, which is the same for all of Linux's interfaces: proc(5).
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is the process name, which may contain anything.
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |index: usize| fields[index - 3].parse::<u32>().unwrap();
    TICK * (ticks(14) + ticks(15))
}
