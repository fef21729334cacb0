//! What the choice of an interface rests on.

use std::net::IpAddr;

use heddle_core::address::Family;
use heddle_core::interface::Facts;

use crate::{Kernel, KernelError};

impl Kernel {
    /// What [`select`](heddle_core::interface::select) has to choose from. `can_reach` is the selection's.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be read.
    pub async fn facts(&self, can_reach: Option<IpAddr>) -> Result<Facts, KernelError> {
        Ok(Facts {
            interfaces: self.interfaces().await?,
            default_routes_v4: self.default_routes(Family::V4).await?,
            default_routes_v6: self.default_routes(Family::V6).await?,
            route_to: match can_reach {
                Some(target) => match self.route_to(target).await {
                    Ok(route) => Some(route),
                    // There is none.
                    Err(KernelError::Refused { .. }) => None,
                    Err(error) => return Err(error),
                },
                None => None,
            },
        })
    }
}
