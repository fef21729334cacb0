//! `heddle demo`: an overlay between hosts that exist for half a minute, shown step by step.

mod requirements;
mod screen;
mod story;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{Daemon, Error, Families, Lab};
use screen::Screen;

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

/// How the demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was shown worked.
    Pass,
    /// Something did not, and the demo has said what.
    Fail,
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
    requirements::check(options)?;
    let start = Instant::now();
    let screen = Screen::new();
    let lab = Lab::new(options.families)?;
    requirements::check_vxlan(&lab)?;
    // Outside the story, because their logs are wanted when it breaks off.
    let mut daemons = Vec::new();
    match story::tell(&screen, options, &lab, &mut daemons) {
        Ok(summary) => {
            screen.verdict(
                "PASS",
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
            screen.verdict("FAIL", &error.to_string());
            Ok(Verdict::Fail)
        }
    }
}

fn show_log(screen: &Screen, daemon: &Daemon) {
    screen.heading(&format!("The log of heddled on {} ends with", daemon.host()));
    screen.text(&daemon.log_tail());
}
