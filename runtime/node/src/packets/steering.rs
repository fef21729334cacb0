//! Adapts a plugin's instance to the traits of the packet path.

use std::net::IpAddr;

use heddle_packet::{Steer, Transform};
use heddle_plugin::PacketInstance;

/// A plugin's instance, with errors as text.
pub(crate) struct Steering(PacketInstance);

impl Steering {
    pub(crate) fn new(instance: PacketInstance) -> Self {
        Self(instance)
    }
}

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
