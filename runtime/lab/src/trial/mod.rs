//! `heddle plugin run`: a plugin at work on hosts that exist for a few seconds, and what can be seen of it if it does not
//! work.

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

/// What is tried out, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon to run.
    pub heddled: PathBuf,
    /// The plugin's name, which the daemon looks for.
    pub name: String,
    /// What it is, for the title: "racks 0.1.0, a backend".
    pub title: String,
    /// The component.
    pub component: Vec<u8>,
    /// What it may do: the contents of a file for the daemon's `--plugin-policy`.
    pub policy: String,
    /// What it is for.
    pub subject: Subject,
    /// The families of overlay and underlay.
    pub families: Families,
    /// Leave everything running at the end until the trial is interrupted.
    pub keep: bool,
}

/// What a plugin is for.
#[derive(Clone, Debug)]
pub enum Subject {
    /// The network is made of it.
    Backend {
        /// The object `Backend` of the network config, as JSON.
        config: String,
    },
    /// It writes files.
    Emitter {
        /// What the daemon is asked for: a value of `--emit`.
        emit: String,
        /// Directories in which it may write files. What is there on this machine stays as it is.
        directories: Vec<PathBuf>,
    },
}

/// What there is so far. It outlives the story, because it is looked at when that breaks off.
#[derive(Default)]
struct Scene {
    daemons: Vec<Daemon>,
    containers: Vec<Container>,
    hosts: Vec<Host>,
}

/// How a story ended, in a few words.
type Ending = Result<String, String>;

/// Tries a plugin out and prints how it goes. Nothing is left behind afterwards, however it ends.
///
/// # Errors
///
/// When it cannot begin: no root, a program is missing, or an emitter's files would be among this machine's own. Nothing
/// has been printed then.
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

/// Why a daemon is not ready, if it says so.
fn show_reasons(screen: &Screen, daemon: &Daemon) {
    if let Ok((status, reasons)) = daemon.health("/readyz")
        && status != 200
    {
        screen.heading(&format!("Why {} is not ready", daemon.host()));
        screen.whole(&reasons);
    }
}

/// Where daemons find the plugin, and what it may do.
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
        // The daemon takes no plugin that others can change, and a umask may let the group.
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

    /// The daemon of a host, with this plugin.
    fn heddled(&self, host: &Host, heddled: &Path, store: &Store) -> Command {
        let mut command = host.heddled(heddled, store);
        command.arg(format!("--plugin-dir={}", self.plugins.display()));
        command.arg(format!("--plugin-policy={}", self.policy.display()));
        command
    }
}

/// The network config, in a directory that hosts share.
fn put_config(screen: &Screen, lab: &Lab, config: &str) -> Result<Store, Error> {
    screen.step("The network config");
    screen.text(config);
    let store = Store::directory(lab.directory().join("store"))?;
    store.put_config(config)?;
    Ok(store)
}
