//! Cleanup of leftovers that the first plan would reach too late, or does not cover. The first plan
//! removes everything else in the scope that is not planned.

use std::collections::BTreeMap;

use heddle_core::diff::{Scope, diff};
use heddle_core::family::PerFamily;
use heddle_core::object::Object;
use heddle_kernel::KernelError;
use ipnet::IpNet;

use crate::ports::Dataplane;

/// Removes devices of an earlier backend. A VXLAN device may occupy the UDP port that the packet
/// path needs.
///
/// # Errors
///
/// If the kernel cannot be read.
pub(crate) async fn remove_devices(
    dataplane: &dyn Dataplane,
    scope: &Scope,
) -> Result<(), KernelError> {
    remove(dataplane, scope, |object| match object {
        Object::Link(link) => !scope.links.contains(&link.name),
        _ => false,
    })
    .await
}

/// Removes routes to networks that this node was in before. Those through the external interface,
/// as host-gw has them, lie outside of the scope.
///
/// Runs once per start, not for as long as the daemon runs: another daemon on this host may have
/// joined that network since, and then has to restore its routes only once.
///
/// # Errors
///
/// If the kernel cannot be read.
pub(crate) async fn remove_routes(
    dataplane: &dyn Dataplane,
    scope: &Scope,
    networks: PerFamily<IpNet>,
) -> Result<(), KernelError> {
    if networks.iter().all(|network| scope.covers(*network)) {
        return Ok(());
    }
    let former = Scope { networks: networks.into_iter().collect(), ..scope.clone() };
    remove(dataplane, &former, |object| match object {
        Object::Route(route) => {
            former.covers(route.destination) && !scope.covers(route.destination)
        }
        _ => false,
    })
    .await
}

/// Removes this daemon's objects in a scope that are `unwanted`.
async fn remove(
    dataplane: &dyn Dataplane,
    scope: &Scope,
    unwanted: impl Fn(&Object) -> bool,
) -> Result<(), KernelError> {
    let observed = dataplane.observe(scope, &[]).await?;
    let mut removals = diff(&BTreeMap::new(), &observed);
    removals.retain(|change| unwanted(change.object()));
    for change in &removals {
        tracing::info!("remove {}", change.object());
    }
    for failure in dataplane.apply(scope, removals).await {
        tracing::error!("{failure}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
