//! The part of a backend's plan that does not depend on peers.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use heddle_core::address::LinkName;
use heddle_core::object::{Object, Plan};

use crate::refusal::Refusal;

/// Permitted MTUs: the maximum is the largest packet, and IPv4 needs the minimum (RFC 791, section
/// 3.2).
pub const MTU: RangeInclusive<u32> = 68..=65_535;

/// The part of the plan that does not depend on peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// The objects to be in the kernel.
    pub plan: Plan,
    /// The sockets behind the plan's TUN device, if it has one. A plan has at most one.
    pub tunnel: Option<Tunnel>,
    /// MTU of containers' interfaces, in bytes.
    pub mtu: u32,
}

/// The UDP sockets behind a TUN device (`tun` in the WIT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The TUN device, which is part of the plan.
    pub link: LinkName,
    /// Source addresses of the datagrams: one per enabled family, in the order of the network
    /// config, IPv4 first.
    pub local: Vec<IpAddr>,
    /// UDP port of this node and of its peers. Not 0.
    pub port: u16,
    /// Maximum number of bytes that the plugin adds to a packet; 0 if it does not transform
    /// packets. The plan's MTUs are already reduced by it.
    pub overhead: u32,
}

impl NodePlan {
    /// Returns the devices in the plan.
    pub fn links(&self) -> Vec<LinkName> {
        self.plan.links().map(|link| link.name).collect()
    }

    /// Reduces the MTUs by `overhead`, the number of bytes that the plugin adds to each packet.
    ///
    /// # Errors
    ///
    /// An MTU would fall below the minimum.
    pub fn leave_room(mut self, overhead: u32) -> Result<Self, Refusal> {
        let Some(tunnel) = &mut self.tunnel else { return Ok(self) };
        tunnel.overhead = overhead;
        let lower = |object: &str, mtu: &mut u32| {
            let lowered = mtu.saturating_sub(overhead);
            if !MTU.contains(&lowered) {
                return Err(Refusal::new(
                    object,
                    format!(
                        "its MTU is {mtu} less an overhead of {overhead}: expected {} bytes or more",
                        MTU.start()
                    ),
                ));
            }
            *mtu = lowered;
            Ok(())
        };
        for object in &mut self.plan.objects {
            if let Object::Link(link) = object
                && link.name == tunnel.link
            {
                lower(&format!("link {}", link.name), &mut link.mtu)?;
            }
        }
        lower("the plan", &mut self.mtu)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use heddle_core::object::{Link, LinkKind};

    use super::*;

    fn plan(mtu: u32) -> NodePlan {
        let link: LinkName = "flannel0".parse().unwrap();
        let device = Link { name: link, mtu, mac: None, up: true, kind: LinkKind::Tun };
        let local = vec!["192.168.0.72".parse().unwrap()];
        NodePlan {
            plan: Plan { objects: vec![Object::Link(device)] },
            tunnel: Some(Tunnel { link, local, port: 8285, overhead: 0 }),
            mtu,
        }
    }

    #[test]
    fn overhead_is_subtracted_from_the_mtus() {
        let mut expected = plan(1422);
        expected.tunnel.as_mut().unwrap().overhead = 50;
        assert_eq!(plan(1472).leave_room(50), Ok(expected));
        assert_eq!(plan(1472).leave_room(0), Ok(plan(1472)));
    }

    #[test]
    fn mtu_smaller_than_overhead_is_refused() {
        assert_eq!(
            plan(100).leave_room(33).unwrap_err().to_string(),
            "link flannel0: its MTU is 100 less an overhead of 33: expected 68 bytes or more"
        );
        assert!(plan(100).leave_room(u32::MAX).is_err());
    }

    #[test]
    fn plan_without_tun_device_is_unchanged() {
        let kernel_only = NodePlan { tunnel: None, ..plan(1450) };
        assert_eq!(kernel_only.clone().leave_room(50), Ok(kernel_only));
    }
}
