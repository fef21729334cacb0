//! Returns malformed strings and lists: bytes that are not UTF-8, and addresses outside its memory.

#![allow(unsafe_code, reason = "the language has no such texts otherwise")]

use std::mem::ManuallyDrop;

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Advertisements, NodePlan};

/// The hostile plugin.
pub struct MalformedText;

/// Returns a string of this length at this address, both unchecked.
fn text_at(address: usize, length: usize) -> String {
    // SAFETY: this is unsound on purpose. The host must not trust the value; the guest never reads
    // it.
    unsafe { String::from_raw_parts(address as *mut u8, length, length) }
}

impl Malice for MalformedText {
    fn advertise(scene: &Scene<'_>, good: &mut Advertisements) {
        scene.play("utf-8", || {
            let bytes = vec![b'"', 0xff, 0xfe, b'"'];
            // SAFETY: unsound on purpose, as above.
            good.backend_type = Some(unsafe { String::from_utf8_unchecked(bytes) });
        });
        scene.play("pointer", || good.backend_type = Some(text_at(usize::MAX - 15, 64)));
        scene.play("length", || good.backend_type = Some(text_at(1024, u32::MAX as usize)));
    }

    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        // One string of 64 KiB, referenced four thousand times.
        scene.play("alias", || {
            let mut text = ManuallyDrop::new("x".repeat(1 << 16));
            let sysctl = heddle_sdk::Sysctl {
                link: heddle_hostile::DEVICE.into(),
                family: heddle_sdk::Family::V4,
                name: "forwarding".into(),
                value: String::new(),
            };
            for _ in 0..4096 {
                let value = text_at(text.as_mut_ptr() as usize, text.len());
                good.plan.sysctls.push(heddle_sdk::Sysctl { value, ..sysctl.clone() });
            }
        });
    }
}

hostile!(MalformedText, name = "malformed-text");
