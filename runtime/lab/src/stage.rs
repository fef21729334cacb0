//! The common parts of demos and trials: hosts, and daemons on them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use crate::screen::Screen;
use crate::{Container, Daemon, Error, Host, Lab, READY_LIMIT, Store, wait_until};

/// The size of an echo request's IP and ICMP headers in bytes.
const HEADERS_V4: u32 = 28;
const HEADERS_V6: u32 = 48;

/// Returns the payload of the largest echo request that fits an MTU, in bytes.
pub(crate) fn largest_payload(address: IpAddr, mtu: u32) -> u32 {
    mtu.saturating_sub(if address.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 })
}

/// Creates hosts named host1, host2 …
pub(crate) fn make_hosts(screen: &Screen, lab: &Lab, count: usize) -> Result<Vec<Host>, Error> {
    (1..=count)
        .map(|number| {
            let host = lab.host(&format!("host{number}"))?;
            let addresses: Vec<_> = host.addresses().map(|a| a.to_string()).collect();
            screen.fact(host.name(), &format!("eth0 {}", addresses.join(", ")));
            Ok(host)
        })
        .collect()
}

/// Starts daemons on all hosts at once, and waits until each is ready. `daemons` is filled even if
/// that fails.
pub(crate) fn start_daemons(
    screen: &Screen,
    hosts: &[Host],
    store: &Store,
    command: impl Fn(&Host) -> Command,
    daemons: &mut Vec<Daemon>,
) -> Result<(), Error> {
    for host in hosts {
        daemons.push(host.start(command(host))?);
    }
    let mut seen = BTreeSet::new();
    wait_until("a lease for each host", READY_LIMIT, || {
        for (key, value) in store.leases().map_err(|error| error.to_string())? {
            if seen.insert(key.clone()) {
                screen.fact(&key, &value);
            }
        }
        // Do not wait for a daemon that has exited.
        if let Err(ended) = daemons.iter_mut().try_for_each(Daemon::check_running) {
            return Ok(Err(ended));
        }
        if seen.len() == hosts.len() {
            return Ok(Ok(()));
        }
        Err(format!("{} of {}", seen.len(), hosts.len()))
    })??;
    for daemon in daemons {
        let took = daemon.wait_ready()?;
        screen.fact(daemon.host(), &format!("ready {} ms after its start", took.as_millis()));
    }
    Ok(())
}

/// Prints the end of a daemon's log.
pub(crate) fn show_log(screen: &Screen, daemon: &Daemon) {
    screen.heading(&format!("The log of heddled on {} ends with", daemon.host()));
    screen.whole(&daemon.log_tail());
}

/// Keeps everything running until a signal ends the process.
pub(crate) fn keep(screen: &Screen, hosts: &[Host], containers: &[Container]) -> ! {
    screen.step("Look around; Ctrl-C removes everything");
    let enter = |name: &str| format!("ip netns exec {name} bash");
    for host in hosts {
        screen.fact(host.name(), &enter(host.namespace().name()));
    }
    for (host, container) in hosts.iter().zip(containers) {
        screen.fact(&format!("on {}", host.name()), &enter(container.namespace().name()));
    }
    loop {
        std::thread::park();
    }
}
