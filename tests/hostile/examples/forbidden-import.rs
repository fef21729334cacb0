//! Imports a function that no plugin may import.

#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::Advertisements;

wit_bindgen::generate!({
    inline: "
        package evil:shell;
        interface shell { run: func(command: string); }
        world evil { import shell; }
    ",
});

/// The hostile plugin.
pub struct ForbiddenImport;

impl Malice for ForbiddenImport {
    fn advertise(_: &Scene<'_>, _: &mut Advertisements) {
        evil::shell::shell::run("reboot");
    }
}

hostile!(ForbiddenImport, name = "forbidden-import");
