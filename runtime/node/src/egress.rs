//! The devices by which packets to peers leave a node whose address is on a device that carries no
//! packets itself: the loopback or a dummy device, on hosts with a routing protocol.

use std::collections::BTreeSet;
use std::net::IpAddr;

use heddle_core::address::Family;
use heddle_core::interface::{Facts, Interface, Requirements, Selection, SelectionError, select};
use heddle_core::lease::Lease;
use heddle_core::node::Underlay;
use heddle_kernel::KernelError;
use heddle_store::{StoreError, holdings};

use crate::ports::{Dataplane, Ports};

/// The underlay, as it is chosen for a node.
pub(crate) struct Chosen {
    pub(crate) underlay: Underlay,
    /// True if packets to peers leave by the interface itself.
    pub(crate) carries: bool,
}

/// The reason why no underlay is chosen.
pub(crate) enum Unchosen {
    /// The host has no suitable interface.
    Interface(SelectionError),
    /// The peers cannot be read.
    Store(StoreError),
    /// The kernel cannot be read.
    Kernel(KernelError),
}

/// Chooses the underlay. The MTU depends on the routes to the peers that have a lease by now, if
/// packets leave by other interfaces.
///
/// # Errors
///
/// [`Unchosen`].
pub(crate) async fn choose(
    requirements: &Requirements,
    selection: &Selection,
    ports: &Ports,
    facts: &mut Facts,
) -> Result<Chosen, Unchosen> {
    let choose =
        |facts: &Facts| select(requirements, selection, facts).map_err(Unchosen::Interface);
    let underlay = choose(facts)?;
    if carries(&underlay, facts) {
        return Ok(Chosen { underlay, carries: true });
    }
    let found = holdings(ports.store.as_ref(), &|_| ()).await.map_err(Unchosen::Store)?;
    let peers = addresses(found.leases());
    let followed = follow(ports.dataplane.as_ref(), &underlay, &peers, facts).await;
    followed.map_err(Unchosen::Kernel)?;
    Ok(Chosen { underlay: choose(facts)?, carries: false })
}

/// Adds the devices by which packets to these peers leave to the facts, if the underlay carries none
/// itself.
///
/// # Errors
///
/// If the kernel cannot be read.
pub(crate) async fn follow(
    dataplane: &dyn Dataplane,
    underlay: &Underlay,
    peers: &BTreeSet<IpAddr>,
    facts: &mut Facts,
) -> Result<(), KernelError> {
    if peers.is_empty() || carries(underlay, facts) {
        return Ok(());
    }
    for public in underlay.public_addresses {
        let family = Family::of(public);
        let Some(source) = underlay.own_address(public) else { continue };
        let of_family = peers.iter().copied().filter(|peer| Family::of(*peer) == family);
        let links = dataplane.egress(source, of_family.collect()).await?;
        facts.egress.extend(links.into_iter().map(|link| (family, link)));
    }
    Ok(())
}

/// Returns the public addresses of these leases.
pub(crate) fn addresses<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> BTreeSet<IpAddr> {
    leases.into_iter().flat_map(Lease::public_addresses).collect()
}

fn carries(underlay: &Underlay, facts: &Facts) -> bool {
    let mut found = facts.interfaces.iter();
    found.find(|found| found.name == underlay.link).is_none_or(Interface::carries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ScriptedKernel, facts, interface, name, net};

    fn underlay(link: &str) -> Underlay {
        let public: IpAddr = [192, 0, 2, 1].into();
        Underlay {
            link: name(link),
            mtu: 1500,
            addresses: vec![net("192.0.2.1/32")],
            public_addresses: [public].into(),
        }
    }

    async fn egress(link: &str, peers: &[&str]) -> Vec<String> {
        let kernel = ScriptedKernel::default();
        let lo = Interface { loopback: true, ..interface("lo", &["192.0.2.1/32"]) };
        let mut facts = facts(vec![lo, interface("eth0", &[])]);
        kernel.with(|script| {
            script.ways.insert([203, 0, 113, 9].into(), name("eth1"));
            script.ways.insert("2001:db8::9".parse().unwrap(), name("eth2"));
        });
        let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        follow(&kernel, &underlay(link), &peers, &mut facts).await.unwrap();
        facts.egress.iter().map(|(family, link)| format!("{family} {link}")).collect()
    }

    #[tokio::test]
    async fn routes_to_peers_count_behind_the_loopback() {
        assert_eq!(egress("lo", &["203.0.113.9", "203.0.113.10"]).await, ["IPv4 eth1"]);
        // A peer of a family in which this node has no address.
        assert_eq!(egress("lo", &["2001:db8::9"]).await, [""; 0]);
        assert_eq!(egress("lo", &[]).await, [""; 0]);
    }

    #[tokio::test]
    async fn interface_that_carries_packets_needs_no_routes() {
        assert_eq!(egress("eth0", &["203.0.113.9"]).await, [""; 0]);
    }
}
