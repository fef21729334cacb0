//! The facts on which the choice of the underlay interface is based.

use std::net::IpAddr;

use heddle_core::address::{Family, LinkName};
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
        let (v4, v6) =
            (self.default_routes(Family::V4).await?, self.default_routes(Family::V6).await?);
        let best = |family, routes: &[Vec<LinkName>]| {
            routes.first().into_iter().flatten().map(|link| (family, *link)).collect::<Vec<_>>()
        };
        let egress = [best(Family::V4, &v4), best(Family::V6, &v6)].concat();
        Ok(Facts {
            interfaces: self.interfaces().await?,
            egress: egress.into_iter().collect(),
            default_routes_v4: v4.into_iter().flatten().collect(),
            default_routes_v6: v6.into_iter().flatten().collect(),
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
