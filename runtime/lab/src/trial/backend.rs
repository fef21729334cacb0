//! The trial of a backend: builds a network with it, which has to carry the largest packets in both
//! directions.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::capture::Capture;
use super::{Ending, Options, Place, Scene, put_config};
use crate::requirements::{is_installed, not_installed};
use crate::screen::Screen;
use crate::stage::{self, largest_payload};
use crate::{Container, Error, Families, Host, Lab, wait_until};

/// Time limit for the first answer: a daemon may be ready a moment before it learns of the other's
/// lease.
const PATIENCE: Duration = Duration::from_secs(10);

/// The default payload of ping in bytes.
const SMALL: u32 = 56;

pub(super) fn tell(
    screen: &Screen,
    options: &Options,
    config: &str,
    lab: &Lab,
    scene: &mut Scene,
) -> Result<Ending, Error> {
    let Scene { daemons, containers, hosts } = scene;
    let place = Place::make(screen, options, lab)?;
    screen.step("Two hosts: a network namespace each, plugged into one switch");
    *hosts = stage::make_hosts(screen, lab, 2)?;
    let store = put_config(screen, lab, &options.families.config_of(config))?;
    let before = links(&hosts[0])?;
    screen.step("A daemon on each; each takes a lease");
    let command = |host: &Host| place.heddled(host, &options.heddled, &store);
    stage::start_daemons(screen, hosts, &store, command, daemons)?;
    let devices: Vec<_> = links(&hosts[0])?.difference(&before).cloned().collect();

    screen.step("A container on each; pings both ways, the largest packet, unfragmented");
    for host in hosts.iter() {
        containers.push(host.container()?);
    }
    let ways = ways(hosts, containers);
    let deadline = Instant::now() + PATIENCE;
    let mut lost = Vec::new();
    for way in &ways {
        match way.try_out(deadline)? {
            Ok(text) => screen.fact(&way.name, &text),
            Err(text) => {
                screen.fact(&way.name, &text);
                lost.push(format!("{} to {}", way.name, way.address));
            }
        }
    }
    if lost.is_empty() {
        show_host(screen, &hosts[0], &devices, options.families)?;
        return Ok(Ok(format!("{} ways from container to container", ways.len())));
    }
    for host in hosts.iter() {
        show_host(screen, host, &devices, options.families)?;
    }
    watch(screen, hosts, &devices, &ways)?;
    Ok(Err(format!("packets do not get through: {}", lost.join(", "))))
}

/// A path from a container to an address of another host's container.
struct Way<'a> {
    name: String,
    host: &'a Host,
    from: &'a Container,
    address: IpAddr,
}

/// Returns the paths from every container to each address of every other.
fn ways<'a>(hosts: &'a [Host], containers: &'a [Container]) -> Vec<Way<'a>> {
    let all = || hosts.iter().zip(containers);
    let mut ways = Vec::new();
    for (host, from) in all() {
        for (other, to) in all().filter(|(other, _)| other.name() != host.name()) {
            ways.extend(to.addresses().iter().map(|&address| Way {
                name: format!("{} → {}", host.name(), other.name()),
                host,
                from,
                address,
            }));
        }
    }
    ways
}

impl Way<'_> {
    /// Pings with a small packet until it is answered or the deadline has passed, and then with the
    /// largest that fits the MTU.
    fn try_out(&self, deadline: Instant) -> Result<Ending, Error> {
        let Self { address, from, .. } = self;
        let rest = deadline.saturating_duration_since(Instant::now());
        if wait_until("an answer", rest, || from.ping(*address, SMALL)).is_err() {
            return Ok(Err(format!("no answer from {address}")));
        }
        let mtu = self.host.subnet_env()?.mtu.unwrap_or_default();
        Ok(match from.ping(*address, largest_payload(*address, mtu)) {
            Ok(time) => Ok(format!("{mtu} bytes to {address} in {time}")),
            Err(_) => Err(format!("{address} answers, but not to {mtu} bytes, the MTU")),
        })
    }
}

/// Returns the names of a host's devices.
fn links(host: &Host) -> Result<BTreeSet<String>, Error> {
    let links: Vec<Value> = host.namespace().json("ip", "-j link show")?;
    Ok(links.iter().filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect())
}

/// Prints the objects that the daemon programmed, as `ip` and `bridge` show them.
fn show_host(
    screen: &Screen,
    host: &Host,
    devices: &[String],
    families: Families,
) -> Result<(), Error> {
    screen.step(&format!("What was programmed on {}", host.name()));
    for device in devices {
        let line = format!("-d link show {device}");
        screen.command(&format!("ip {line}"), &host.namespace().ip(&line)?);
    }
    for (_, family) in [(families.v4(), "-4"), (families.v6(), "-6")].iter().filter(|(on, _)| *on) {
        let line = format!("{family} route show proto 72");
        let routes = host.namespace().ip(&line)?;
        let shown = if routes.is_empty() { "no routes" } else { &routes };
        screen.command(&format!("ip {line}"), shown);
    }
    for device in devices {
        let neighbours = format!("neigh show dev {device} nud permanent");
        let fdb = format!("fdb show dev {device}");
        let shown = [
            (format!("ip {neighbours}"), host.namespace().ip(&neighbours)?),
            (format!("bridge {fdb}"), host.namespace().bridge(&fdb)?),
        ];
        for (line, printed) in shown.iter().filter(|(_, printed)| !printed.trim().is_empty()) {
            screen.command(line, printed);
        }
    }
    Ok(())
}

/// Captures the hosts' packets while the containers ping each other, and prints them.
fn watch(screen: &Screen, hosts: &[Host], devices: &[String], ways: &[Way]) -> Result<(), Error> {
    screen.step("What tcpdump sees of further pings");
    if !is_installed("tcpdump") {
        screen.text(&not_installed("tcpdump", "tcpdump"));
        return Ok(());
    }
    let mut captures = Vec::new();
    for host in hosts {
        for device in std::iter::once("eth0").chain(devices.iter().map(String::as_str)) {
            captures.push((host, Capture::start(host.namespace(), device)?));
        }
    }
    for way in ways {
        let mut ping = Command::new("ping");
        ping.args(["-n", "-c", "2", "-i", "0.2", "-W", "1", &way.address.to_string()]);
        // With or without an answer.
        let _ = way.from.namespace().run(ping);
    }
    for (host, capture) in captures {
        let line = format!("tcpdump -ni {}   # on {}", capture.device(), host.name());
        screen.command(&line, &capture.finish()?);
    }
    Ok(())
}
