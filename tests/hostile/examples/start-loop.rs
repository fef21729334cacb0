//! Loops for ever in a constructor, which runs when the component is instantiated, before any call.

use heddle_hostile::{Malice, hostile};

/// The hostile plugin.
pub struct StartLoop;

impl Malice for StartLoop {}

hostile!(StartLoop, name = "start-loop");

#[cfg(target_family = "wasm")]
#[used]
#[allow(unsafe_code, reason = "that is where constructors stand")]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn construct() {
        heddle_hostile::hang();
    }
    construct
};
