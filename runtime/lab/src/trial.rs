//! `heddle plugin run`: tries a plugin out on temporary hosts, and shows diagnostics if it fails.

mod apart;
mod backend;
mod capture;
mod emitter;

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::screen::Screen;
use crate::stage::{self, show_log};
use crate::{Container, Daemon, Error, Families, Host, Lab, Store, Verdict, requirements};
use apart::Apart;

/// The plugin to try, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon to run.
    pub heddled: PathBuf,
    /// The plugin's name, by which the daemon finds it.
    pub name: String,
    /// A description for the title: "racks 0.1.0, a backend".
    pub title: String,
    /// The component's bytes.
    pub component: Vec<u8>,
    /// The plugin's grants: the contents of a file for the daemon's `--plugin-policy`.
    pub policy: String,
    /// The kind of plugin.
    pub subject: Subject,
    /// The families of overlay and underlay.
    pub families: Families,
    /// True to keep everything running at the end until the trial is interrupted.
    pub keep: bool,
}

/// The kind of plugin to try.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A backend, with which a network is built.
    Backend {
        /// The object `Backend` of the network config, as JSON.
        config: String,
    },
    /// An emitter, which writes files.
    Emitter {
        /// The value of the daemon's flag `--emit`.
        emit: String,
        /// The directories in which it may write files. Existing files of this machine are left
        /// alone.
        directories: Vec<PathBuf>,
    },
}

/// The resources created so far. They outlive the story, because they are inspected if it fails.
#[derive(Default)]
struct Scene {
    daemons: Vec<Daemon>,
    containers: Vec<Container>,
    hosts: Vec<Host>,
}

/// The outcome of a story, in a few words.
type Ending = Result<String, String>;

/// Tries a plugin and prints the progress. Removes everything afterwards, whatever the outcome.
///
/// # Errors
///
/// If the trial cannot start: without root, if a program is missing, or if an emitter's files would
/// be among this machine's own. Nothing has been printed then.
pub fn run(options: &Options) -> Result<Verdict, Error> {
    requirements::root("a plugin's run")?;
    requirements::programs(&requirements::HOSTS)?;
    requirements::daemon(&options.heddled)?;
    let start = Instant::now();
    let screen = Screen::new("run");
    let lab = Lab::new(options.families)?;
    let mut scene = Scene::default();
    let title = || screen.title(&format!("{}, on hosts that exist for this", options.title));
    let told = match &options.subject {
        Subject::Backend { config } => {
            title();
            backend::tell(&screen, options, config, &lab, &mut scene)
        }
        Subject::Emitter { emit, directories } => {
            requirements::programs(&apart::PROGRAMS)?;
            let apart = Apart::new(directories, &[&options.heddled, lab.directory()])?;
            title();
            emitter::tell(&screen, options, emit, &apart, &lab, &mut scene)
        }
    };
    let ending = told.unwrap_or_else(|error| Err(error.to_string()));
    if ending.is_err() {
        for daemon in &scene.daemons {
            show_reasons(&screen, daemon);
            show_log(&screen, daemon);
        }
    }
    let (verdict, text) = match ending {
        Ok(text) => (Verdict::Pass, text),
        Err(text) => (Verdict::Fail, text),
    };
    let seconds = start.elapsed().as_secs_f64();
    screen.verdict(verdict, &format!("{}: {text}; {seconds:.1} s in all", options.name));
    if options.keep {
        stage::keep(&screen, &scene.hosts, &scene.containers);
    }
    Ok(verdict)
}

/// Prints the reasons why a daemon is not ready, if it reports any.
fn show_reasons(screen: &Screen, daemon: &Daemon) {
    if let Ok((status, reasons)) = daemon.health("/readyz")
        && status != 200
    {
        screen.heading(&format!("Why {} is not ready", daemon.host()));
        screen.whole(&reasons);
    }
}

/// The plugin's directory and grants, as the daemons see them.
struct Place {
    plugins: PathBuf,
    policy: PathBuf,
}

impl Place {
    fn make(screen: &Screen, options: &Options, lab: &Lab) -> Result<Self, Error> {
        screen.step("What the plugin asks for and is granted");
        screen.text(&options.policy);
        let place = Self {
            plugins: lab.directory().join("plugins"),
            policy: lab.directory().join("plugins.toml"),
        };
        let component = place.plugins.join(format!("{}.wasm", options.name));
        // The daemon refuses a plugin that others can modify, and the umask may allow the group to.
        let write = |path: &Path, contents: &[u8]| {
            std::fs::write(path, contents)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o644))
        };
        std::fs::DirBuilder::new()
            .mode(0o755)
            .create(&place.plugins)
            .and_then(|()| write(&component, &options.component))
            .and_then(|()| write(&place.policy, options.policy.as_bytes()))
            .map_err(Error::io(format!("writing {}", component.display())))?;
        Ok(place)
    }

    /// Builds the command line of a host's daemon with this plugin.
    fn heddled(&self, host: &Host, heddled: &Path, store: &Store) -> Command {
        let mut command = host.heddled(heddled, store);
        command.arg(format!("--plugin-dir={}", self.plugins.display()));
        command.arg(format!("--plugin-policy={}", self.policy.display()));
        command
    }
}

/// Prints the network config and stores it, in a directory that the hosts share.
fn put_config(screen: &Screen, lab: &Lab, config: &str) -> Result<Store, Error> {
    screen.step("The network config");
    screen.text(config);
    let store = Store::directory(lab.directory().join("store"))?;
    store.put_config(config)?;
    Ok(store)
}
