//! Exhausts resources that the host holds for it: handles that are never closed, random numbers by
//! the gigabyte.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::NodePlan;
use wasip2::cli::stderr::get_stderr;
use wasip2::random::random::get_random_bytes;

/// The hostile plugin.
pub struct Leaks;

impl Malice for Leaks {
    fn plan_node(scene: &Scene<'_>, _: &mut NodePlan) {
        scene.play("streams", || {
            loop {
                std::mem::forget(get_stderr());
            }
        });
        scene.play("pollables", || {
            let stream = get_stderr();
            loop {
                std::mem::forget(stream.subscribe());
            }
        });
        scene.play("random", || {
            for _ in 0..100 {
                drop(get_random_bytes(16 << 20));
            }
        });
        scene.play("gigabyte", || drop(get_random_bytes(1 << 30)));
    }
}

hostile!(Leaks, name = "leaks");
