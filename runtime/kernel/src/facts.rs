//! The facts on which the choice of the underlay interface is based.

use std::net::IpAddr;

use heddle_core::address::Family;
use heddle_core::interface::Facts;

use crate::{Kernel, KernelError};

impl Kernel {
    /// Reads the facts that [`select`](heddle_core::interface::select) chooses from. `can_reach` is
    /// the address given in the selection.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    pub async fn facts(&self, can_reach: Option<IpAddr>) -> Result<Facts, KernelError> {
        Ok(Facts {
            interfaces: self.interfaces().await?,
            default_routes_v4: self.default_routes(Family::V4).await?,
            default_routes_v6: self.default_routes(Family::V6).await?,
            route_to: match can_reach {
                Some(target) => match self.route_to(target).await {
                    Ok(route) => Some(route),
                    // There is no route.
                    Err(KernelError::Refused { .. }) => None,
                    Err(error) => return Err(error),
                },
                None => None,
            },
        })
    }
}
