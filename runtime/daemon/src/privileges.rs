//! What the daemon may do. Whatever it does not need, it gives up before it does anything else, however it was started:
//! what gets hold of it, or of a program that it runs, has no more than that.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What it needs; the same as in `dist/heddled.service`, which says what for.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHOWN);

/// Whether it may change the network. Where that cannot be told, the kernel will say so.
pub(crate) fn has_net_admin() -> bool {
    capabilities(None).map_or(true, |sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Gives up everything else, for this thread and those that it starts, for good and for every program that is run: to be
/// called while there is but one thread.
///
/// # Errors
///
/// What the kernel says against it. No kernel is known that does.
pub(crate) fn give_up() -> io::Result<()> {
    let sets = capabilities(None)?;
    // Without SETPCAP there is nothing to be had from the bounding set anyway: see below.
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
    // systemd has done so already, and lets nobody ask for it again (capset(2) is in its group @privileged).
    if needed != sets {
        set_capabilities(None, needed)?;
    }
    // A program that is run has no more than this process, whoever owns it.
    set_no_new_privs(true)?;
    Ok(())
}
