//! The lab itself: a switch to which hosts are connected.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::scratch::Scratch;
use crate::{Error, Host, Namespace};

/// The address families of the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// IPv4 and IPv6.
    Dual,
}

impl Families {
    /// Returns true if IPv4 is included.
    pub fn v4(self) -> bool {
        self != Self::V6
    }

    /// Returns true if IPv6 is included.
    pub fn v6(self) -> bool {
        self != Self::V4
    }

    /// Returns the network config for an overlay of the same families: vxlan with defaults.
    pub fn config(self) -> String {
        self.config_with("vxlan")
    }

    /// Returns the config with another backend, of which only `Backend.Type` is set.
    pub fn config_with(self, backend: &str) -> String {
        self.config_of(&format!(r#"{{"Type": "{backend}"}}"#))
    }

    /// Returns the config with this object `Backend`, as JSON.
    pub fn config_of(self, backend: &str) -> String {
        let overlay = match self {
            Self::V4 => r#""Network": "10.244.0.0/16""#,
            Self::V6 => {
                r#""EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48""#
            }
            Self::Dual => {
                r#""Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48""#
            }
        };
        format!(r#"{{{overlay}, "Backend": {backend}}}"#)
    }
}

/// A switch that is also a router, and a directory for logs and state. Hosts are in 192.168.0.0/16
/// and fd00::/64.
#[derive(Debug)]
pub struct Lab {
    name: String,
    families: Families,
    pub(crate) switch: Namespace,
    directory: Scratch,
    hosts: AtomicU32,
}

/// The router's addresses, the next hop of every host's default route.
const GATEWAY: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 168, 255, 254), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xffff));

impl Lab {
    /// Sets up the switch.
    ///
    /// # Errors
    ///
    /// Without root, or without `ip`.
    pub fn new(families: Families) -> Result<Self, Error> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        // Several processes may have labs at the same time, and each several.
        let name = format!("heddle-{}-{number}", std::process::id());
        let directory = Scratch::new(&name)?;
        let switch = Namespace::create(format!("{name}-switch"))?;
        let (v4, v6) = GATEWAY;
        // `name` is required, because `br` and the like would be parsed as an option.
        switch.ip("link add name switch type bridge forward_delay 0 mcast_snooping 0")?;
        switch.ip(&format!("addr add {v4}/16 dev switch"))?;
        switch.ip(&format!("addr add {v6}/64 dev switch nodad"))?;
        switch.ip("link set switch up")?;
        Ok(Self { name, families, switch, directory, hosts: AtomicU32::new(0) })
    }

    /// Returns the families of the underlay.
    pub fn families(&self) -> Families {
        self.families
    }

    /// Returns a directory that is removed with the lab, in memory if there is room.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Adds a host with `eth0` on the switch, default routes and forwarding.
    ///
    /// # Errors
    ///
    /// Those of `ip`.
    pub fn host(&self, name: &str) -> Result<Host, Error> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        self.numbered_host(name, u16::try_from(number).unwrap_or(u16::MAX))
    }

    /// Adds a host whose addresses end in this number, 192.168.0.72 for 72. Hosts without an
    /// explicit number count from 1.
    ///
    /// # Errors
    ///
    /// Those of `ip`.
    pub fn numbered_host(&self, name: &str, number: u16) -> Result<Host, Error> {
        let [high, low] = number.to_be_bytes();
        let directory = self.directory().join(name);
        std::fs::create_dir(&directory)
            .map_err(Error::io(format!("creating {}", directory.display())))?;
        let v4 = Ipv4Addr::new(192, 168, high, low);
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number);
        let host = Host {
            name: name.to_owned(),
            namespace: Arc::new(Namespace::create(format!("{}-{name}", self.name))?),
            v4: self.families.v4().then_some(v4),
            v6: self.families.v6().then_some(v6),
            directory,
            containers: AtomicU32::new(0),
            daemons: AtomicU32::new(0),
        };
        self.wire(&host)?;
        Ok(host)
    }

    /// Replaces a host's network namespace with a fresh one, as a reboot does. `eth0` keeps its
    /// MAC.
    pub(crate) fn renew(&self, host: &Host) -> Result<(), Error> {
        let links: Vec<serde_json::Value> = host.namespace.json("ip", "-j link show eth0")?;
        host.namespace.renew()?;
        self.wire(host)?;
        if let Some(mac) = links.first().and_then(|link| link["address"].as_str()) {
            host.namespace.ip(&format!("link set eth0 address {mac}"))?;
        }
        Ok(())
    }

    /// Configures a host's empty network namespace.
    fn wire(&self, host: &Host) -> Result<(), Error> {
        let namespace = &host.namespace;
        for setting in
            ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"]
        {
            namespace.set_sysctl(setting, "1")?;
        }
        let mut addresses = Vec::new();
        addresses.extend(host.v4.map(|address| format!("{address}/16")));
        addresses.extend(host.v6.map(|address| format!("{address}/64")));
        self.connect(host, "eth0", &addresses)?;
        if self.families.v4() {
            namespace.ip(&format!("route add default via {} dev eth0", GATEWAY.0))?;
        }
        if self.families.v6() {
            namespace.ip(&format!("route add default via {} dev eth0", GATEWAY.1))?;
        }
        Ok(())
    }

    /// Connects another interface of a host to the switch.
    ///
    /// # Errors
    ///
    /// Those of `ip`.
    pub fn connect(&self, host: &Host, link: &str, addresses: &[String]) -> Result<(), Error> {
        static PORTS: AtomicU32 = AtomicU32::new(0);
        let port = format!("port{}", PORTS.fetch_add(1, Ordering::Relaxed));
        host.namespace.ip(&format!(
            "link add name {link} type veth peer name {port} netns {}",
            self.switch.name()
        ))?;
        self.switch.ip(&format!("link set {port} master switch up"))?;
        for address in addresses {
            // Duplicate address detection would delay the use of an IPv6 address by a second.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            host.namespace.ip(&format!("addr add {address} dev {link}{nodad}"))?;
        }
        host.namespace.ip(&format!("link set {link} up"))?;
        Ok(())
    }
}
