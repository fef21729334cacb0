//! Never comes to an end before it is asked anything: a constructor, which runs when the component is instantiated.

use heddle_hostile::{Malice, hostile};

/// The malice.
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
