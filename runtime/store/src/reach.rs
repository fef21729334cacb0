//! Addresses at which a store is reached, as far as they are known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::LeaseStore;

/// Time limit for resolving one name.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Time for which an address is kept after it was last found. The answers of a name server may
/// rotate.
const RETENTION: Duration = Duration::from_secs(3600);

/// Limit on the number of addresses kept for one host, and on that of name servers.
const ADDRESSES: usize = 64;

/// Lists of name servers: the C library's, and that of systemd-resolved. Where systemd-resolved
/// runs, it is the only server in the C library's list (resolv.conf(5),
/// systemd-resolved.service(8)).
const RESOLVER_FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Length limit of each list, in bytes.
const RESOLVER_FILE_LIMIT: u64 = 64 << 10;

/// Addresses that lead to a store: those of its hosts, and those of the name servers that resolve
/// the hosts' names.
///
/// An address is kept for an hour after it was last found. A host whose name cannot be resolved
/// keeps its addresses: the name server itself may be unreachable. Name servers are kept likewise
/// while the files that list them are missing or empty, as they may be while somebody rewrites
/// them.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    hosts: BTreeMap<String, Seen>,
    name_servers: Seen,
}

/// Addresses, each with the time at which it was last found.
#[derive(Clone, Debug, Default)]
struct Seen(BTreeMap<IpAddr, Instant>);

impl Seen {
    /// Adds addresses, and removes those that were last found too long ago. Changes nothing if
    /// `addresses` is empty.
    fn found(&mut self, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        let mut addresses = addresses.into_iter().peekable();
        if addresses.peek().is_none() {
            return;
        }
        let Self(known) = self;
        known.retain(|_, seen| now.duration_since(*seen) < RETENTION);
        for address in addresses {
            if known.len() < ADDRESSES || known.contains_key(&address) {
                known.insert(address, now);
            }
        }
    }
}

impl Reach {
    /// Resolves the store's hosts and records their addresses; also reads the list of name servers
    /// if a host is a name. Waits at most five seconds for each name.
    pub async fn look(&mut self, store: &dyn LeaseStore) {
        let hosts = store.hosts();
        let mut named = false;
        for host in hosts {
            named |= host.parse::<IpAddr>().is_err();
            let addresses = timeout(RESOLVE_LIMIT, resolve(&host)).await.ok().flatten();
            if let Some(addresses) = addresses {
                self.found(host, addresses, Instant::now());
            }
        }
        if named {
            let read = spawn_blocking(read_name_servers).await;
            self.name_servers.found(read.unwrap_or_default(), Instant::now());
        }
    }

    fn found(&mut self, host: String, addresses: Vec<IpAddr>, now: Instant) {
        self.hosts.entry(host).or_default().found(addresses, now);
    }

    /// Returns all known addresses.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let seen = self.hosts.values().chain([&self.name_servers]);
        seen.flat_map(|Seen(addresses)| addresses.keys()).copied().collect()
    }
}

/// Resolves a host to its addresses. None if that fails.
async fn resolve(host: &str) -> Option<Vec<IpAddr>> {
    // The port is irrelevant here.
    let found = tokio::net::lookup_host((host, 0)).await.ok()?;
    Some(found.map(|address| address.ip().to_canonical()).collect())
}

fn read_name_servers() -> BTreeSet<IpAddr> {
    let read = |path: &str| heddle_files::read_text(Path::new(path), RESOLVER_FILE_LIMIT);
    let lists = RESOLVER_FILES.map(|path| read(path).unwrap_or_default());
    lists.iter().flat_map(|list| name_servers(list)).collect()
}

/// Returns the name servers in a resolv.conf(5), without loopback addresses.
fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        // This drops `fe80::1%eth0`: the overlay never contains link-local addresses.
        words.next().filter(|_| is_server)?.parse().ok()
    });
    servers.filter(|server: &IpAddr| !server.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text = "# nameserver 192.0.2.1\nsearch example\nnameserver 10.0.0.53\nnameserver 127.0.0.53\n\
                    nameserver  fd00::53 \nnameserver\nnameserver fe80::1%eth0\noptions ndots:1\n";
        let found: Vec<_> = name_servers(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.0.0.53", "fd00::53"]);
    }

    #[test]
    fn host_unresolvable_keeps_its_addresses() {
        let (mut reach, start) = (Reach::default(), Instant::now());
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        reach.found("etcd".into(), vec![address(1)], start);
        reach.found("other".into(), vec![address(9)], start);
        // The answers rotate, and then resolution fails.
        let hour = start + RETENTION;
        reach.found("etcd".into(), vec![address(2)], hour - Duration::from_secs(1));
        reach.found("etcd".into(), vec![], hour + RETENTION);
        assert_eq!(reach.addresses(), [address(1), address(2), address(9)].into());
        reach.found("etcd".into(), vec![address(2)], hour);
        assert_eq!(reach.addresses(), [address(2), address(9)].into());
        let many = (0..=255).map(address).collect();
        reach.found("other".into(), many, hour);
        assert_eq!(reach.hosts["other"].0.len(), ADDRESSES);
    }

    #[test]
    fn resolv_conf_truncated_keeps_its_name_servers() {
        let (mut reach, start) = (Reach::default(), Instant::now());
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        reach.name_servers.found([address(1), address(2)], start);
        reach.name_servers.found([], start + RETENTION);
        assert_eq!(reach.addresses(), [address(1), address(2)].into());
        // A server that is no longer listed is removed after an hour.
        let hour = start + RETENTION;
        reach.name_servers.found([address(2)], hour - Duration::from_secs(1));
        assert_eq!(reach.addresses(), [address(1), address(2)].into());
        reach.name_servers.found([address(2), address(3)], hour);
        assert_eq!(reach.addresses(), [address(2), address(3)].into());
    }
}
