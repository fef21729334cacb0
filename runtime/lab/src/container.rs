//! Containers, connected like Docker's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use ipnet::IpNet;

use crate::{Error, Namespace, PingStream, http};

/// The bridge to which a host's containers are attached.
const BRIDGE: &str = "docker0";

/// A network namespace on its host's bridge, with an interface `eth0` and addresses from the host's
/// subnet.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    addresses: Vec<IpAddr>,
    server: Option<Child>,
}

impl Container {
    /// Starts a container on a host with these subnets, the `number`th one from 0 on. The first one
    /// creates the bridge.
    pub(crate) fn start(
        host: &Namespace,
        subnets: &[IpNet],
        mtu: u32,
        number: u32,
    ) -> Result<Self, Error> {
        if number == 0 {
            host.ip(&format!(
                "link add name {BRIDGE} mtu {mtu} type bridge forward_delay 0 mcast_snooping 0"
            ))?;
            host.set_sysctl(&format!("ipv6/conf/{BRIDGE}/dad_transmits"), "0")?;
            for subnet in subnets {
                host.ip(&format!("addr add {subnet} dev {BRIDGE}{}", nodad(subnet.addr())))?;
            }
            host.ip(&format!("link set {BRIDGE} up"))?;
        }
        let namespace = Namespace::create(format!("{}-c{number}", host.name()))?;
        // Otherwise its link-local address would not be usable for a second.
        namespace.set_sysctl("ipv6/conf/default/dad_transmits", "0")?;
        namespace.ip(&format!(
            "link add name eth0 mtu {mtu} type veth peer name veth{number} mtu {mtu} netns {}",
            host.name()
        ))?;
        host.ip(&format!("link set veth{number} master {BRIDGE} up"))?;
        namespace.ip("link set eth0 up")?;
        let mut addresses = Vec::new();
        for subnet in subnets {
            let address = after(subnet.addr(), number + 1);
            namespace.ip(&format!(
                "addr add {address}/{} dev eth0{}",
                subnet.prefix_len(),
                nodad(address)
            ))?;
            namespace.ip(&format!("route add default via {} dev eth0", subnet.addr()))?;
            addresses.push(address);
        }
        Ok(Self { namespace, addresses, server: None })
    }

    /// Returns its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns its addresses, IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Sends unfragmentable echo requests with `size` bytes of payload until one is answered, and
    /// returns the round-trip time as ping prints it.
    ///
    /// The very first one may be lost: until IPv6 has resolved each hop's neighbour, the kernel
    /// queues only a few packets.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] without an answer within three seconds.
    pub fn ping(&self, address: IpAddr, size: u32) -> Result<String, Error> {
        let mut command = Command::new("ping");
        command.args(["-n", "-c", "1", "-i", "0.2", "-w", "3", "-M", "do", "-s"]);
        command.args([size.to_string(), address.to_string()]);
        let printed = self.namespace.run(command)?;
        let time = printed.split("time=").nth(1).and_then(|rest| rest.lines().next());
        Ok(time.unwrap_or("?").to_owned())
    }

    /// Starts sending an echo request every 10 ms.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn ping_stream(&self, address: IpAddr) -> Result<PingStream, Error> {
        self.namespace.ping_stream(address)
    }

    /// Starts a web server on port 80 that serves the files of `directory`.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn serve(&mut self, directory: &std::path::Path) -> Result<(), Error> {
        let mut command = Command::new("busybox");
        command.args(["httpd", "-f", "-p", "80", "-h"]).arg(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(self.namespace.spawn(command)?);
        Ok(())
    }

    /// Fetches a page from another container.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] without status 200 within two seconds.
    pub fn fetch(&self, address: IpAddr, path: &str) -> Result<String, Error> {
        let url = format!("http://{}{path}", SocketAddr::new(address, 80));
        http::get(&self.namespace, &url).and_then(|(status, body)| match status {
            200 => Ok(body),
            _ => Err(Error::Http {
                request: format!("GET {url}"),
                problem: format!("status {status}"),
            }),
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // It may have exited already; it is gone afterwards in either case.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// Returns the address `count` after this one.
fn after(address: IpAddr, count: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) + count).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) + u128::from(count)).into(),
    }
}
