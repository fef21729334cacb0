//! UDP sockets of this network namespace, and their owners (proc(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use heddle_core::address::Family;

use super::kernel_file;

/// A bound UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UdpSocket {
    /// Local address; unspecified means any.
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    inode: u64,
    /// Processes that have it open. Empty if it is the kernel's, or the process is not visible from
    /// here.
    pub(crate) owners: Vec<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    /// Process name, of at most 15 bytes.
    pub(crate) name: String,
    /// TUN and TAP devices that it has open.
    pub(crate) devices: Vec<String>,
}

impl UdpSocket {
    #[cfg(test)]
    pub(crate) fn new(address: &str, port: u16, owners: Vec<Process>) -> Self {
        Self { address: address.parse().unwrap(), port, inode: 0, owners }
    }
}

/// Returns the sockets on one port.
pub(crate) fn on_port(port: u16) -> Vec<UdpSocket> {
    // Read the namespace of this thread, which may differ from that of the process's other threads.
    let table = |file: &str| kernel_file(Path::new("/proc/thread-self/net").join(file));
    let mut sockets = Vec::new();
    for (file, family) in [("udp", Family::V4), ("udp6", Family::V6)] {
        // Without IPv6 the file is missing, and there are no such sockets.
        sockets.extend(parse(&table(file).unwrap_or_default(), family));
    }
    sockets.retain(|socket| socket.port == port);
    let mut owners = owners(&sockets.iter().map(|socket| socket.inode).collect());
    for socket in &mut sockets {
        socket.owners = owners.remove(&socket.inode).unwrap_or_default();
    }
    sockets
}

fn parse(table: &str, family: Family) -> Vec<UdpSocket> {
    let row = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (address, port) = columns.get(1)?.split_once(':')?;
        Some(UdpSocket {
            address: address_of(address, family)?,
            port: u16::from_str_radix(port, 16).ok()?,
            inode: columns.get(9)?.parse().ok()?,
            owners: Vec::new(),
        })
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Parses an address, which the kernel prints as 32-bit words in native byte order.
fn address_of(hexadecimal: &str, family: Family) -> Option<IpAddr> {
    let word = |start: usize| {
        let digits = hexadecimal.get(start..start + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match family {
        Family::V4 => Some(Ipv4Addr::from(word(0)?).into()),
        Family::V6 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
    }
}

/// Returns the visible processes that have these sockets open.
fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Process>> {
    let mut found: BTreeMap<u64, Vec<Process>> = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    for process in processes() {
        let mut open: BTreeSet<u64> = inodes_of(process).collect();
        open.retain(|inode| inodes.contains(inode));
        for inode in open {
            let (name, devices) = (name_of(process), devices_of(process));
            found.entry(inode).or_default().push(Process { id: process, name, devices });
        }
    }
    found
}

/// Returns true if a process of this name runs.
pub(crate) fn runs(name: &str) -> bool {
    processes().any(|process| name_of(process) == name)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns the inodes of a process's sockets. Empty if the process has ended or belongs to another
/// user.
fn inodes_of(process: u32) -> impl Iterator<Item = u64> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

fn name_of(process: u32) -> String {
    let name = kernel_file(format!("/proc/{process}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Returns the TUN and TAP devices of a process: `iff:` in `/proc/PID/fdinfo`
/// (`tun_chr_show_fdinfo` in `drivers/net/tun.c`).
fn devices_of(process: u32) -> Vec<String> {
    let infos = fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten();
    let device = |info: fs::DirEntry| {
        let text = kernel_file(info.path())?;
        text.lines().find_map(|line| line.strip_prefix("iff:").map(|name| name.trim().to_owned()))
    };
    infos.filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Socket;

    use super::*;

    #[test]
    fn owner_of_socket_is_found() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let socket = Socket::bind(local).unwrap();
            let address = socket.local_addr().unwrap();
            let found = on_port(address.port());
            let found = found.iter().find(|found| found.address == address.ip()).unwrap();
            assert_eq!(found.owners.len(), 1, "{found:?}");
            assert_eq!(found.owners[0].id, std::process::id());
            assert!(!found.owners[0].name.is_empty());
        }
    }

    #[test]
    fn running_process_is_found_by_name() {
        assert!(runs(&name_of(std::process::id())));
        assert!(!runs("no such name"));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn socket_table_is_parsed() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             \x20 123: 4800A8C0:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n";
        let found = parse(table, Family::V4);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].address.to_string(), "192.168.0.72");
        assert_eq!((found[0].port, found[0].inode), (8472, 4711));
        assert_eq!(
            address_of("000000FD000000000000000001000000", Family::V6),
            Some("fd00::1".parse().unwrap())
        );
    }
}
