//! The steps of the demo.

use std::time::{Duration, Instant};

use super::{Options, StoreKind, Summary};
use crate::screen::Screen;
use crate::stage::{self, largest_payload};
use crate::{
    Container, Daemon, Error, Etcd, Families, Host, Lab, PREFIX, READY_LIMIT, Signal, Store,
    wait_until,
};

/// The backends to which the network switches after vxlan, in order.
const OTHER_BACKENDS: [&str; 2] = ["host-gw", "udp"];

pub(super) fn tell(
    screen: &Screen,
    options: &Options,
    lab: &Lab,
    daemons: &mut Vec<Daemon>,
) -> Result<Summary, Error> {
    screen.title(&format!(
        "Heddle: an overlay network between {} hosts on this machine",
        options.hosts
    ));
    screen.step("Hosts: a network namespace each, plugged into one switch");
    let hosts = stage::make_hosts(screen, lab, options.hosts)?;
    let store = put_config(screen, options, lab)?;
    screen.step("A daemon on each host, all at once; each takes a lease, in flannel's format");
    let command = |host: &Host| host.heddled(&options.heddled, &store);
    stage::start_daemons(screen, &hosts, &store, command, daemons)?;
    hosts.iter().try_for_each(|host| wait_for_peers(host, hosts.len() - 1))?;
    show_host(screen, options.families, &hosts[0])?;
    let containers = start_containers(screen, lab, &hosts)?;
    let reached = reach_everyone(screen, &hosts, &containers)?;
    let healed = heal(screen, &hosts[0])?;
    for backend in OTHER_BACKENDS {
        swap(screen, options, backend, &hosts, &store, daemons, &containers)?;
    }
    if options.keep {
        stage::keep(screen, &hosts, &containers);
    }
    Ok(Summary { reached, healed })
}

fn put_config(screen: &Screen, options: &Options, lab: &Lab) -> Result<Store, Error> {
    let store = match options.store {
        StoreKind::Directory => {
            screen.step("The network config, a file in a directory that the hosts share");
            Store::directory(lab.directory().join("store"))?
        }
        StoreKind::Etcd => {
            screen.step("The network config, a key in etcd");
            Store::Etcd(Etcd::start(lab)?)
        }
    };
    let place = match &store {
        Store::Directory(path) => path.join("config").display().to_string(),
        Store::Etcd(etcd) => format!("{} {PREFIX}/config", etcd.endpoint()),
    };
    let config = options.families.config();
    store.put_config(&config)?;
    screen.text(&place);
    screen.text(&config);
    Ok(store)
}

/// Waits until a host has routes to all peers: a daemon may be ready a moment before it learns of
/// the latest leases.
fn wait_for_peers(host: &Host, peers: usize) -> Result<(), Error> {
    let families = host.addresses().count();
    wait_until(format!("a route to every peer on {}", host.name()), READY_LIMIT, || {
        let state = host.kernel_state().map_err(|error| error.to_string())?;
        let overlay = |dev: &String| dev.starts_with("flannel");
        let routes = state.routes.iter().filter(|route| route.dev.as_ref().is_some_and(overlay));
        match routes.count() {
            count if count == peers * families => Ok(()),
            count => Err(format!("{count} routes")),
        }
    })
}

fn show_host(screen: &Screen, families: Families, host: &Host) -> Result<(), Error> {
    let name = host.name();
    screen.step(&format!("What the daemon made of it on {name}"));
    let devices = [(families.v4(), "flannel.1", "-4"), (families.v6(), "flannel-v6.1", "-6")];
    for (_, device, family) in devices.into_iter().filter(|(there, ..)| *there) {
        for line in [
            format!("-d link show {device}"),
            format!("{family} route show dev {device}"),
            format!("{family} neigh show dev {device} nud permanent"),
        ] {
            screen.command(&format!("ip {line}"), &host.namespace().ip(&line)?);
        }
        let line = format!("fdb show dev {device}");
        screen.command(&format!("bridge {line}"), &host.namespace().bridge(&line)?);
    }
    let file = host.subnet_file();
    let text =
        std::fs::read_to_string(&file).map_err(Error::io(format!("reading {}", file.display())))?;
    screen.command("cat /run/flannel/subnet.env", &text);
    Ok(())
}

fn start_containers(screen: &Screen, lab: &Lab, hosts: &[Host]) -> Result<Vec<Container>, Error> {
    screen.step("A container on each host, behind a bridge as Docker makes it, with a web server");
    hosts
        .iter()
        .map(|host| {
            let mut container = host.container()?;
            let pages = lab.directory().join(format!("pages-{}", host.name()));
            std::fs::create_dir(&pages)
                .and_then(|()| std::fs::write(pages.join("index.html"), greeting(host)))
                .map_err(Error::io(format!("writing {}", pages.display())))?;
            container.serve(&pages)?;
            let addresses: Vec<_> = container.addresses().iter().map(ToString::to_string).collect();
            screen.fact(&format!("on {}", host.name()), &addresses.join(", "));
            Ok(container)
        })
        .collect()
}

fn greeting(host: &Host) -> String {
    format!("hello from the container on {}\n", host.name())
}

fn reach_everyone(
    screen: &Screen,
    hosts: &[Host],
    containers: &[Container],
) -> Result<usize, Error> {
    screen.step("Every container to every other: the largest packet, unfragmented, and a web page");
    let mut reached = 0;
    for (from, container) in hosts.iter().zip(containers) {
        let mtu = from.subnet_env()?.mtu.unwrap_or_default();
        for (to, target) in hosts.iter().zip(containers) {
            if from.name() == to.name() {
                continue;
            }
            for &address in target.addresses() {
                let time = container.ping(address, largest_payload(address, mtu))?;
                // The server was started only a moment ago.
                let page =
                    wait_until(format!("the page of {address}"), Duration::from_secs(5), || {
                        container.fetch(address, "/")
                    })?;
                if page != greeting(to) {
                    return Err(Error::Output {
                        command: format!("http://{address}/"),
                        problem: page,
                    });
                }
                screen.fact(
                    &format!("{} → {}", from.name(), to.name()),
                    &format!("{mtu} bytes to {address} in {time}; “{}”", page.trim()),
                );
                reached += 1;
            }
        }
    }
    Ok(reached)
}

fn heal(screen: &Screen, host: &Host) -> Result<Duration, Error> {
    screen.step(&format!("Somebody deletes a route on {}", host.name()));
    let state = host.kernel_state()?;
    let route = state
        .routes
        .iter()
        .find(|route| route.dev.as_deref().is_some_and(|dev| dev.starts_with("flannel")))
        .ok_or_else(|| Error::Missing(format!("no overlay route on {}", host.name())))?;
    let line = format!("route del {}", route.dst);
    host.namespace().ip(&line)?;
    let deleted = Instant::now();
    screen.command(&format!("ip {line}"), "");
    wait_until("the route coming back", Duration::from_secs(5), || match host.kernel_state() {
        Ok(now) if now == state => Ok(()),
        Ok(_) => Err("it is not there".to_owned()),
        Err(error) => Err(error.to_string()),
    })?;
    let healed = deleted.elapsed();
    let line = format!("route show {}", route.dst);
    screen.command(&format!("ip {line}"), &host.namespace().ip(&line)?);
    Ok(healed)
}

/// Switches the network to another backend.
fn swap(
    screen: &Screen,
    options: &Options,
    backend: &str,
    hosts: &[Host],
    store: &Store,
    daemons: &mut Vec<Daemon>,
    containers: &[Container],
) -> Result<(), Error> {
    screen.step(&format!(
        "Another backend: Backend.Type is {backend} now, and the daemons are started again"
    ));
    store.put_config(&options.families.config_with(backend))?;
    for daemon in daemons.drain(..) {
        daemon.stop(Signal::TERM)?;
    }
    for host in hosts {
        daemons.push(host.start(host.heddled(&options.heddled, store))?);
    }
    for daemon in &mut *daemons {
        daemon.wait_ready()?;
    }
    let network = if options.families.v4() { "10.244.0.0/16" } else { "fd00:10:244::/48" };
    let line = format!("route show root {network} proto 72");
    let line = if options.families.v4() { line } else { format!("-6 {line}") };
    screen.command(&format!("ip {line}"), &hosts[0].namespace().ip(&line)?);
    for (from, container) in hosts.iter().zip(containers) {
        for (to, target) in hosts.iter().zip(containers).filter(|(to, _)| to.name() != from.name())
        {
            for &address in target.addresses() {
                // A daemon may be ready a moment before it learns of the others' leases.
                let what = format!("an answer from {address}");
                let time = wait_until(what, READY_LIMIT, || container.ping(address, 56))?;
                screen.fact(
                    &format!("{} → {}", from.name(), to.name()),
                    &format!("{address} answers in {time}"),
                );
            }
        }
    }
    Ok(())
}
