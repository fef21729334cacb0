//! `heddle demo`: an overlay between hosts that exist for half a minute, shown step by step.

mod story;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::screen::Screen;
use crate::stage::show_log;
use crate::{Error, Families, Lab, Verdict, requirements};

/// What the demo should show.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon to run.
    pub heddled: PathBuf,
    /// How many hosts, at least 2.
    pub hosts: usize,
    /// Where the leases are.
    pub store: StoreKind,
    /// The families of overlay and underlay.
    pub families: Families,
    /// Leave everything running at the end until the demo is interrupted.
    pub keep: bool,
}

/// Which store the daemons share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A directory of lease files: nothing has to be installed for it.
    Directory,
    /// An etcd of the demo's own.
    Etcd,
}

/// What there is to be proud of at the end.
struct Summary {
    /// How many times one container reached another.
    reached: usize,
    /// How long a deleted route was away.
    healed: Duration,
}

/// Runs the demo and prints it. Nothing is left behind afterwards, however it ends.
///
/// # Errors
///
/// When it cannot begin: no root, or a program or kernel feature is missing. Nothing has been printed then.
pub fn run(options: &Options) -> Result<Verdict, Error> {
    check(options)?;
    let start = Instant::now();
    let screen = Screen::new("demo");
    let lab = Lab::new(options.families)?;
    requirements::vxlan(&lab)?;
    // Outside the story, because their logs are wanted when it breaks off.
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
