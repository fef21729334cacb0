//! Traps in a constructor, before any call.

use heddle_hostile::{Malice, hostile};

/// The hostile plugin.
pub struct StartTrap;

impl Malice for StartTrap {}

hostile!(StartTrap, name = "start-trap");

#[cfg(target_family = "wasm")]
#[used]
#[allow(unsafe_code, reason = "that is where constructors stand")]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn construct() {
        panic!("as was asked for");
    }
    construct
};
