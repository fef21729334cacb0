//! Claims another peer's end point for the hostile peer: frames for the one would go to the other.

use heddle_hostile::{DEVICE, Malice, Scene, hostile, mac};
use heddle_sdk::{FdbEntry, Lease, Plan};

/// The hostile plugin.
pub struct EndPointTheft;

impl Malice for EndPointTheft {
    fn plan_peer(_: &Scene<'_>, peer: &Lease, good: &mut Plan) {
        good.fdb_entries.push(FdbEntry {
            link: DEVICE.into(),
            mac: mac("192.168.0.201"),
            destination: peer.families[0].public_address,
        });
    }
}

hostile!(EndPointTheft, name = "end-point-theft");
