//! Formats plans as text, like `ip` and `bridge`, and like the host does: for tests and logs.

use std::fmt::{self, Display, Formatter};

use crate::{
    Address, Family, FdbEntry, Link, LinkKind, Neighbour, Plan, Route, RouteAction, Sysctl,
};

impl Display for Link {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            LinkKind::Vxlan(_) => "vxlan",
            LinkKind::Tun(_) => "tun",
        };
        write!(f, "link {} type {kind} mtu {}", self.name, self.mtu)?;
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        if let LinkKind::Vxlan(vxlan) = &self.kind {
            let learning = if vxlan.learning { "learning" } else { "nolearning" };
            let gbp = if vxlan.gbp { " gbp" } else { "" };
            write!(
                f,
                " id {} local {} dev {} dstport {} {learning}{gbp}",
                vxlan.vni, vxlan.local, vxlan.underlay, vxlan.port
            )?;
        }
        f.write_str(" up")
    }
}

impl Display for Sysctl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        write!(f, "sysctl net.{family}.conf.{}.{} = {}", self.link, self.name, self.value)
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "address {} dev {}", self.network, self.link)
    }
}

impl Display for FdbEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "fdb {} dev {} dst {}", self.mac, self.link, self.destination)
    }
}

impl Display for Neighbour {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "neighbour {} dev {} lladdr {}", self.address, self.link, self.mac)
    }
}

impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.destination)?;
        match &self.action {
            RouteAction::Forward(hop) => {
                if let Some(gateway) = hop.gateway {
                    write!(f, " via {gateway}")?;
                }
                write!(f, " dev {}{}", hop.link, if hop.onlink { " onlink" } else { "" })
            }
            RouteAction::Blackhole => f.write_str(" blackhole"),
        }
    }
}

impl Display for Plan {
    /// Formats one object per line: devices, the objects on them, and routes, each kind in
    /// alphabetical order.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fn lines<T: ToString>(objects: &[T]) -> Vec<String> {
            let mut lines: Vec<_> = objects.iter().map(ToString::to_string).collect();
            lines.sort_unstable();
            lines
        }
        let tunnels = self.links.iter().filter_map(|link| match &link.kind {
            LinkKind::Tun(tun) => {
                let local: Vec<_> = tun.local.iter().map(ToString::to_string).collect();
                Some(format!("tunnel {} local {} port {}", link.name, local.join(","), tun.port))
            }
            LinkKind::Vxlan(_) => None,
        });
        let mut all = lines(&self.links);
        all.extend(tunnels);
        all.extend(lines(&self.sysctls));
        all.extend(lines(&self.addresses));
        all.extend(lines(&self.fdb_entries));
        all.extend(lines(&self.neighbours));
        all.extend(lines(&self.routes));
        all.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
