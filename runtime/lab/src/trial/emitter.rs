//! The trial of an emitter: lets it write its files on a host that is part of a network.

use super::apart::{Apart, Written};
use super::{Ending, Options, Place, Scene, put_config};
use crate::screen::Screen;
use crate::stage;
use crate::{Error, Host, Lab};

/// The backend, which works on every kernel.
const BACKEND: &str = "host-gw";

pub(super) fn tell(
    screen: &Screen,
    options: &Options,
    emit: &str,
    apart: &Apart,
    lab: &Lab,
    scene: &mut Scene,
) -> Result<Ending, Error> {
    let Scene { daemons, hosts, .. } = scene;
    let place = Place::make(screen, options, lab)?;
    screen.step("A host: a network namespace");
    *hosts = stage::make_hosts(screen, lab, 1)?;
    let store = put_config(screen, lab, &options.families.config_with(BACKEND))?;
    screen.step(&format!("A daemon on it, with --emit={emit}"));
    let command = |host: &Host| {
        let mut command = place.heddled(host, &options.heddled, &store);
        command.arg(format!("--emit={emit}"));
        apart.wrap(&command)
    };
    stage::start_daemons(screen, hosts, &store, command, daemons)?;
    screen.step("The files that it wrote");
    let mut files = Vec::new();
    for (host, daemon) in hosts.iter().zip(daemons.iter()) {
        files.extend(apart.written(daemon)?);
        // The only file whose path a daemon flag moves to the host's directory.
        files.extend(Written::read(&host.subnet_file()).ok());
    }
    for file in &files {
        screen.fact(&file.path.display().to_string(), &format!("mode {:o}", file.mode));
        screen.text(&String::from_utf8_lossy(&file.contents));
    }
    Ok(match files.len() {
        0 => Err("no file was written".to_owned()),
        1 => Ok("1 file".to_owned()),
        count => Ok(format!("{count} files")),
    })
}
