//! What an earlier run left, where the first plan comes too late for it or does not look: everything else in the scope
//! that is not planned, that plan removes.

use std::collections::BTreeMap;

use heddle_core::diff::{Scope, diff};
use heddle_core::object::Object;
use heddle_kernel::KernelError;
use ipnet::IpNet;

use crate::ports::Dataplane;

/// Removes the devices of an earlier backend. A VXLAN device may have the port that the packet path is to have now.
///
/// # Errors
///
/// When the kernel cannot be read.
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

/// Removes the routes to the networks that this node was in before. They lie outside of the scope where they lead through
/// the external interface, as host-gw's do.
///
/// Once, and not for as long as the daemon runs: another daemon on this host may have joined that network since, and only
/// has to put its routes back.
///
/// # Errors
///
/// When the kernel cannot be read.
pub(crate) async fn remove_routes(
    dataplane: &dyn Dataplane,
    scope: &Scope,
    networks: Vec<IpNet>,
) -> Result<(), KernelError> {
    if networks.iter().all(|network| scope.covers(*network)) {
        return Ok(());
    }
    let former = Scope { networks, ..scope.clone() };
    remove(dataplane, &former, |object| match object {
        Object::Route(route) => {
            former.covers(route.destination) && !scope.covers(route.destination)
        }
        _ => false,
    })
    .await
}

/// Removes what is this daemon's in a scope, and is not wanted any more.
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
