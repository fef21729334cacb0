//! The number of connections that `RLIMIT_NOFILE` allows.
//!
//! A process without free descriptors cannot do its own work: it opens no netlink socket, runs no program, reads no file.
//! So the servers together get what is left beside a reserve, and never more.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for the daemon's own work. About 30 are in use all the time; the rest is for programs, plugins'
/// files and connections to the store that come and go.
const RESERVE: u64 = 256;

/// The most connections of one server. Probes, Prometheus and some twenty browsers take less.
const CONNECTIONS: u64 = 64;

/// The fewest connections of one server, however few descriptors there are.
const FEWEST: u64 = 4;

/// The soft limit is not raised beyond this: nobody here needs more.
const MOST: u64 = 65_536;

/// A process's limit of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    limit: u64,
    servers: u64,
}

impl Descriptors {
    /// Raises the soft limit to the hard one, and returns what holds then, to be shared by this many servers. Where it
    /// cannot be raised, it stays.
    pub fn raise(servers: u64) -> Self {
        let found = getrlimit(Resource::Nofile);
        let limit = found.current.unwrap_or(u64::MAX);
        let wanted = found.maximum.unwrap_or(u64::MAX).min(MOST);
        let raised = Rlimit { current: Some(wanted), maximum: found.maximum };
        let raised = wanted > limit && setrlimit(Resource::Nofile, raised).is_ok();
        Self { limit: if raised { wanted } else { limit }, servers }
    }

    /// Returns the most connections that each server may have at a time.
    pub fn connections(self) -> usize {
        let free = self.limit.saturating_sub(RESERVE) / self.servers;
        // At most `CONNECTIONS`.
        free.clamp(FEWEST, CONNECTIONS) as usize
    }

    /// Returns what is wrong with a limit that leaves the servers fewer connections than they should have.
    pub fn shortage(self) -> Option<Shortage> {
        let needed = RESERVE + self.servers * CONNECTIONS;
        (self.limit < needed).then_some(Shortage { limits: self, needed })
    }
}

/// There are too few descriptors. Says what follows and how to get more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    limits: Descriptors,
    needed: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RLIMIT_NOFILE: the limit of {} open files is too low; each HTTP server accepts {} connections instead of \
             {CONNECTIONS}. Set LimitNOFILE={} or more in the unit, or use ulimit -n",
            self.limits.limit,
            self.limits.connections(),
            self.needed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_share_what_is_left_beside_the_reserve() {
        for (limit, connections, enough) in [
            (64, 4, false),
            (256, 4, false),
            (280, 8, false),
            (447, 63, false),
            (448, 64, true),
            (1024, 64, true),
            (65_536, 64, true),
            (u64::MAX, 64, true),
        ] {
            let limits = Descriptors { limit, servers: 3 };
            assert_eq!(limits.connections(), connections, "{limit}");
            assert_eq!(limits.shortage().is_none(), enough, "{limit}");
        }
    }

    #[test]
    fn shortage_names_the_limit_and_what_to_set() {
        let shortage = Descriptors { limit: 280, servers: 3 }.shortage().unwrap().to_string();
        for text in ["280 open files", "8 connections", "LimitNOFILE=448", "ulimit -n"] {
            assert!(shortage.contains(text), "{shortage}");
        }
    }

    #[test]
    fn soft_limit_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let hard = before.maximum.unwrap_or(u64::MAX).min(MOST);
        let low = Rlimit { current: Some(hard.min(512)), maximum: before.maximum };
        setrlimit(Resource::Nofile, low).unwrap();
        let limits = Descriptors::raise(3);
        let found = getrlimit(Resource::Nofile).current.unwrap();
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!((limits.limit, found), (hard, hard));
    }
}
