//! Drops privileges. Before anything else, and however it was started, the daemon drops all
//! capabilities that it does not need, so that an attacker who controls it, or a program that it
//! runs, has no others.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Capabilities that the daemon needs. `dist/heddled.service` has the same list, with reasons.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHOWN);

/// Returns true if this process may change the network, or if its capabilities cannot be read: then
/// the kernel's errors will tell.
pub(crate) fn has_net_admin() -> bool {
    capabilities(None).map_or(true, |sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Drops all other capabilities for good, for this thread, for the threads that it starts later and
/// for every program that is run. Must be called while there is only one thread.
///
/// # Errors
///
/// If the kernel refuses. No kernel is known that does.
pub(crate) fn give_up() -> io::Result<()> {
    let sets = capabilities(None)?;
    // Only SETPCAP permits changes of the bounding set. Without it, nothing can be gained from that
    // set anyway, because of `no_new_privs` below.
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        let kernel_has = |capability: &CapabilitySet| {
            capability_is_in_bounding_set(*capability).unwrap_or(false)
        };
        for capability in NEEDED.complement().iter().filter(kernel_has) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    let needed = CapabilitySets {
        effective: sets.effective & NEEDED,
        permitted: sets.permitted & NEEDED,
        inheritable: sets.inheritable & NEEDED,
    };
    // systemd has done this already, and then forbids another capset(2), which is in its group
    // @privileged.
    if needed != sets {
        set_capabilities(None, needed)?;
    }
    // No program that is run gets more privileges than this process, whoever owns the file.
    set_no_new_privs(true)?;
    Ok(())
}
