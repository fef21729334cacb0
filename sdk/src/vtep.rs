//! VXLAN tunnel end points (RFC 7348), as flannel's leases describe them: `{"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:de"}`.

use crate::json::Object;
use crate::{Family, LeaseFamily, MacAddress, PeerError};

/// The largest VXLAN network identifier: 24 bits (RFC 7348, section 5).
pub const MAX_VNI: u32 = 0xff_ffff;

/// Port on which Linux listened before IANA assigned port 4789 to VXLAN, and still its default
/// (`vxlan_port` in `drivers/net/vxlan/vxlan_core.c`). flannel leaves the choice to the kernel.
pub const DEFAULT_PORT: u16 = 8472;

/// Returns the backend data of a node's end point in one family.
pub fn backend_data(vni: u32, mac: MacAddress) -> String {
    format!(r#"{{"VNI":{vni},"VtepMAC":"{mac}"}}"#)
}

/// Returns the MAC address of a peer's end point.
///
/// # Errors
///
/// If the lease has no such address, or is for another network than `vni`.
pub fn peer_mac(peer: &LeaseFamily, vni: u32) -> Result<MacAddress, PeerError> {
    let field = match peer.family() {
        Family::V4 => "BackendData",
        Family::V6 => "BackendV6Data",
    };
    let Some(data) = peer.backend_data.as_deref() else {
        return Err(PeerError::Invalid(format!(
            r#"{field} is missing: expected an object such as {{"VNI":{vni},"VtepMAC":"3a:8b:71:f2:2e:de"}}"#
        )));
    };
    let data = Object::parse(field, data)?;
    // Leases of flannel up to 0.14 have no VNI.
    let theirs = data.integer("VNI", 0..=MAX_VNI)?.unwrap_or(vni);
    if theirs != vni {
        let rule = format!("is {theirs}: expected {vni}, as in the network config");
        return Err(data.error("VNI", rule).into());
    }
    let text = data.text("VtepMAC")?.ok_or_else(|| {
        data.error("VtepMAC", "is missing: expected the MAC address of the peer's device")
    })?;
    let mac: MacAddress =
        text.parse().map_err(|error| data.error("VtepMAC", format!("is {text:?}: {error}")))?;
    if !mac.is_unicast() {
        return Err(data.error("VtepMAC", format!("is {mac}: expected a unicast address")).into());
    }
    Ok(mac)
}
