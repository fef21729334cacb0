//! `heddle demo`: an overlay between hosts that exist for half a minute, shown step by step.

mod story;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::screen::Screen;
use crate::stage::show_log;
use crate::{Error, Families, Lab, Verdict, requirements};

/// Options of the demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon to run.
    pub heddled: PathBuf,
    /// The number of hosts, at least 2.
    pub hosts: usize,
    /// The kind of store for the leases.
    pub store: StoreKind,
    /// The families of overlay and underlay.
    pub families: Families,
    /// True to keep everything running at the end until the demo is interrupted.
    pub keep: bool,
}

/// The store that the daemons share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A directory of lease files; needs no installed program.
    Directory,
    /// An etcd started by the demo.
    Etcd,
}

/// The numbers shown at the end.
struct Summary {
    /// The number of successful connections from one container to another.
    reached: usize,
    /// The time until a deleted route was restored.
    healed: Duration,
}

/// Runs the demo and prints its progress. Removes everything afterwards, whatever the outcome.
///
/// # Errors
///
/// If the demo cannot start, because it lacks root, a program or a kernel feature. Nothing has been
/// printed then.
pub fn run(options: &Options) -> Result<Verdict, Error> {
    check(options)?;
    let start = Instant::now();
    let screen = Screen::new("demo");
    let lab = Lab::new(options.families)?;
    requirements::vxlan(&lab)?;
    // Outside the story, because their logs are shown if it fails.
    let mut daemons = Vec::new();
    match story::tell(&screen, options, &lab, &mut daemons) {
        Ok(summary) => {
            screen.verdict(
                Verdict::Pass,
                &format!(
                    "{} hosts, {} ways from container to container, a deleted route back after {} ms; {:.1} s in all",
                    options.hosts,
                    summary.reached,
                    summary.healed.as_millis(),
                    start.elapsed().as_secs_f64(),
                ),
            );
            Ok(Verdict::Pass)
        }
        Err(error) => {
            for daemon in &daemons {
                show_log(&screen, daemon);
            }
            screen.verdict(Verdict::Fail, &error.to_string());
            Ok(Verdict::Fail)
        }
    }
}

fn check(options: &Options) -> Result<(), Error> {
    requirements::root("the demo")?;
    if options.hosts < 2 {
        return Err(requirements::missing("the demo needs at least 2 hosts"));
    }
    let mut programs = requirements::HOSTS.to_vec();
    programs.push(("busybox", "busybox-static"));
    if options.store == StoreKind::Etcd {
        programs.push(("etcd", "etcd-server"));
    }
    requirements::programs(&programs)?;
    requirements::daemon(&options.heddled)
}
