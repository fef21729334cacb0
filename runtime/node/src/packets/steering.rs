//! Adapts a plugin and its instances to the traits of the packet path.

use std::net::IpAddr;

use heddle_core::lease::Lease;
use heddle_core::site::Site;
use heddle_packet::{Steer, Transform};
use heddle_plugin::{PacketInstance, PacketPlugin};

use super::Instances;

impl Instances for PacketPlugin {
    fn name(&self) -> &str {
        self.name()
    }

    fn transforms(&self) -> bool {
        self.transforms()
    }

    fn instance(&self, site: &Site, peers: &[Lease]) -> Result<Box<dyn Transform>, String> {
        let instance = self.instance(site, peers);
        instance.map(|it| Box::new(Steering(it)) as _).map_err(|reason| reason.to_string())
    }
}

/// A plugin's instance, with errors as text.
struct Steering(PacketInstance);

impl Steer for Steering {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        let mut given = Vec::new();
        self.0.steer(destinations, &mut given).map_err(|reason| reason.to_string())?;
        answers.append(&mut given);
        Ok(())
    }
}

impl Transform for Steering {
    fn encapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        self.0.encapsulate(peer, bytes, lengths).map_err(|reason| reason.to_string())
    }

    fn decapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        self.0.decapsulate(peer, bytes, lengths).map_err(|reason| reason.to_string())
    }
}
