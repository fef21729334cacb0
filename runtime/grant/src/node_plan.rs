//! The part of a backend's plan that does not depend on peers.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use heddle_core::address::LinkName;
use heddle_core::object::{Object, Plan};

use crate::check;
use crate::refusal::Refusal;

/// A packet is not longer, and IPv4 does not work with less (RFC 791, section 3.2).
pub const MTU: RangeInclusive<u32> = 68..=65_535;

/// The part of the plan that does not depend on peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// The objects.
    pub plan: Plan,
    /// What is behind the plan's TUN device, if it has one. It has one at most.
    pub tunnel: Option<Tunnel>,
    /// The MTU for containers' interfaces, in bytes.
    pub mtu: u32,
}

/// The UDP sockets behind a TUN device (`tun` in the WIT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The TUN device. It is in the plan.
    pub link: LinkName,
    /// Source addresses of the datagrams: one per enabled family, in the order of the network config, IPv4 first.
    pub local: Vec<IpAddr>,
    /// UDP port of this node and of its peers. Not 0.
    pub port: u16,
    /// The most bytes that the plugin adds to a packet; 0 if it leaves packets as they are. The plan's MTUs are lower
    /// by it already.
    pub overhead: u32,
}

impl NodePlan {
    /// The devices in it.
    pub fn links(&self) -> Vec<LinkName> {
        check::planned_links(&self.plan)
    }

    /// Leaves room in each packet for what the plugin adds to it, `overhead` bytes.
    ///
    /// # Errors
    ///
    /// An MTU would be lower than any can be.
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
    fn what_a_plugin_adds_to_a_packet_is_taken_from_the_mtus() {
        let mut expected = plan(1422);
        expected.tunnel.as_mut().unwrap().overhead = 50;
        assert_eq!(plan(1472).leave_room(50), Ok(expected));
        assert_eq!(plan(1472).leave_room(0), Ok(plan(1472)));
    }

    #[test]
    fn an_mtu_that_leaves_no_room_is_refused() {
        assert_eq!(
            plan(100).leave_room(33).unwrap_err().to_string(),
            "link flannel0: its MTU is 100 less an overhead of 33: expected 68 bytes or more"
        );
        assert!(plan(100).leave_room(u32::MAX).is_err());
    }

    #[test]
    fn a_plan_without_a_tun_device_stays_as_it_is() {
        let kernel_only = NodePlan { tunnel: None, ..plan(1450) };
        assert_eq!(kernel_only.clone().leave_room(50), Ok(kernel_only));
    }
}
