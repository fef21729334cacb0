//! The kernel's state as `ip` and `bridge` show it, independently of the daemon's own code.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{Error, Namespace};

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Route {
    /// The destination, `default` or a network; a single address has no prefix length.
    pub dst: String,
    /// The gateway.
    pub gateway: Option<String>,
    /// The output device.
    pub dev: Option<String>,
    /// `blackhole` and the like; `None` for a forwarding route.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The protocol that created it, by name or number.
    pub protocol: Option<String>,
    /// `onlink`, `linkdown` …
    #[serde(default)]
    pub flags: Vec<String>,
    /// `None` for the kernel's default.
    pub metric: Option<u32>,
}

/// A neighbour of any device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Neighbour {
    /// The IP address.
    pub dst: String,
    /// The device.
    pub dev: String,
    /// The Ethernet address.
    pub lladdr: Option<String>,
    /// `PERMANENT`, `REACHABLE` …
    pub state: Vec<String>,
}

/// An entry of a VXLAN device's forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct FdbEntry {
    /// The Ethernet address of the frames …
    pub mac: String,
    /// … on this device …
    pub ifname: String,
    /// … that are sent to this IP address.
    pub dst: Option<String>,
    /// `self`, `master` …
    #[serde(default)]
    pub flags: Vec<String>,
    /// `permanent` …
    #[serde(default)]
    pub state: String,
}

/// The objects of an overlay on one host, for comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// All routes of the main tables, except the kernel's own for each address.
    pub routes: BTreeSet<Route>,
    /// All permanent neighbours.
    pub neighbours: BTreeSet<Neighbour>,
    /// All FDB entries with a remote destination.
    pub fdb: BTreeSet<FdbEntry>,
}

impl KernelState {
    pub(crate) fn read(namespace: &Namespace) -> Result<Self, Error> {
        let mut routes: BTreeSet<Route> = namespace.json("ip", "-j -4 route show")?;
        routes.append(&mut namespace.json("ip", "-j -6 route show")?);
        routes.retain(|route| route.protocol.as_deref() != Some("kernel"));
        let mut neighbours: BTreeSet<Neighbour> =
            namespace.json("ip", "-j neigh show nud permanent")?;
        neighbours.retain(|neighbour| neighbour.lladdr.is_some());
        let mut fdb: BTreeSet<FdbEntry> = namespace.json("bridge", "-j fdb show")?;
        fdb.retain(|entry| entry.dst.is_some());
        Ok(Self { routes, neighbours, fdb })
    }

    /// Keeps only the objects on one device.
    #[must_use]
    pub fn on(mut self, device: &str) -> Self {
        self.routes.retain(|route| route.dev.as_deref() == Some(device));
        self.neighbours.retain(|neighbour| neighbour.dev == device);
        self.fdb.retain(|entry| entry.ifname == device);
        self
    }

    /// Returns the number of objects.
    pub fn len(&self) -> usize {
        self.routes.len() + self.neighbours.len() + self.fdb.len()
    }

    /// Returns true if there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the route to a destination.
    pub fn route(&self, destination: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.dst == destination)
    }
}
