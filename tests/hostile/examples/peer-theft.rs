//! Takes another peer's traffic with one peer's plan: all packets, another subnet's, those for
//! another end point; or diverts it by a gateway, a neighbour or an FDB entry.

use heddle_hostile::{DEVICE, Malice, PORT, Scene, hostile, mac, network};
use heddle_sdk::{Address, Family, FdbEntry, Lease, Neighbour, Plan, Route, Sysctl};

/// The hostile plugin.
pub struct PeerTheft;

impl Malice for PeerTheft {
    fn plan_peer(scene: &Scene<'_>, peer: &Lease, good: &mut Plan) {
        let (subnet, public) = (peer.families[0].subnet, peer.families[0].public_address);
        let (underlay, link) = (scene.node.underlay.link.as_str(), DEVICE.to_owned());
        let [honest, router] = [[192, 168, 0, 201].into(), [192, 168, 255, 254].into()];
        let end_point = [10, 244, 201, 0].into();
        match scene.wish() {
            "default" => good.routes.push(Route::dev(network("0.0.0.0/0"), DEVICE)),
            "overlay" => good.routes.push(Route::dev(network("10.244.0.0/16"), DEVICE)),
            "subnet" => {
                good.routes.push(Route::onlink(network("10.244.201.0/24"), subnet.addr(), DEVICE));
            }
            "router" => good.routes = vec![Route::onlink(subnet, router, underlay)],
            "other" => good.routes = vec![Route::onlink(subnet, honest, underlay)],
            "bridge" => good.routes = vec![Route::onlink(subnet, public, "br0")],
            "gateway" => good.routes = vec![Route::onlink(subnet, end_point, DEVICE)],
            "neighbour" => {
                good.neighbours.push(Neighbour { link, address: end_point, mac: mac("mine") });
            }
            "arp" => {
                let link = underlay.to_owned();
                good.neighbours.push(Neighbour { link, address: router, mac: mac("mine") });
            }
            "fdb" => {
                let destination = honest;
                good.fdb_entries.push(FdbEntry { link, mac: mac("mine"), destination });
            }
            "device" => good.links.push(scene.vxlan("heddle2", PORT)),
            "address" => good.addresses.push(Address { link, network: subnet }),
            _ => good.sysctls.push(Sysctl {
                link,
                family: Family::V4,
                name: "forwarding".into(),
                value: "0".into(),
            }),
        }
    }
}

hostile!(PeerTheft, name = "peer-theft");
