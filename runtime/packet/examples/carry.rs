//! Carries packets between a TUN device and UDP in the foreground, steered by a compiled-in table:
//! the baseline for measurements of plugins.
//!
//! ```text
//! carry --device flannel0 --address 10.244.1.0/32 --local 192.168.0.1:8285 --peer 10.244.2.0/24=192.168.0.2
//! ```
//!
//! Creates the device, configures its addresses, MTU and a route for each peer's subnet with `ip`,
//! and carries packets until it is killed, which removes the device. With
//! `--one-packet-per-syscall` it works like flannel's loop in C (`pkg/backend/udp/proxy_amd64.c`):
//! one thread, one packet per read and write, no offload.

#![expect(clippy::disallowed_macros, reason = "a program for measurements")]
#![expect(clippy::disallowed_methods, reason = "a program of its own, for measurements")]

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use heddle_core::address::LinkName;
use heddle_packet::{Destinations, Forwarding, Path, Peer, Settings, Table, TableSteering};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

#[derive(Parser)]
struct Flags {
    /// The TUN device to create.
    #[arg(long)]
    device: LinkName,
    /// An address of the device, with a prefix length. Once per family.
    #[arg(long, required = true)]
    address: Vec<IpNet>,
    /// The address to send from and receive on. Once per family, with the same port.
    #[arg(long, required = true)]
    local: Vec<SocketAddr>,
    /// A peer: `SUBNET=ADDRESS`, where packets to the subnet go to the address.
    #[arg(long, value_parser = peer)]
    peer: Vec<(IpNet, IpAddr)>,
    /// A network that packets from peers may go to. Any by default.
    #[arg(long, default_values = ["0.0.0.0/0", "::/0"])]
    accept: Vec<IpNet>,
    /// The device's MTU. By default the largest for an underlay with MTU 1500.
    #[arg(long)]
    mtu: Option<u32>,
    /// Print the counters each second.
    #[arg(long)]
    counters: bool,
    /// Read one packet and write one packet at a time, on one thread.
    #[arg(long)]
    one_packet_per_syscall: bool,
}

fn peer(text: &str) -> Result<(IpNet, IpAddr)> {
    let (subnet, address) = text.split_once('=').context("expected SUBNET=ADDRESS")?;
    Ok((subnet.parse()?, address.parse()?))
}

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let flags = Flags::parse();
    if flags.one_packet_per_syscall { one_packet_per_syscall(&flags) } else { native(&flags) }
}

/// Runs the path like the daemon does, steered by its own table.
fn native(flags: &Flags) -> Result<()> {
    let mut peers: Vec<Peer> = Vec::new();
    for (subnet, address) in &flags.peer {
        // The addresses of a peer in both families may be given separately; for the path these are
        // two peers.
        peers.push(Peer { endpoints: vec![*address], subnets: vec![*subnet] });
    }
    let path = Path::open(Settings {
        device: flags.device,
        mtu: flags.mtu(),
        addresses: flags.address.iter().map(IpNet::addr).collect(),
        sockets: flags.local.clone(),
        port: flags.local[0].port(),
        destinations: Destinations::new([], &flags.accept),
    })?;
    let running = path.start(|failure| eprintln!("{failure:?}"))?;
    let table = Arc::new(Table::new(peers));
    running.set(Forwarding {
        steering: Some(Box::new(TableSteering(Arc::clone(&table)))),
        table,
        transform: None,
    });
    flags.configure()?;
    let mut before = running.counters();
    loop {
        thread::sleep(Duration::from_secs(1));
        let counters = running.counters();
        if flags.counters && counters != before {
            let numbers = counters.iter().zip(before.iter());
            for ((name, now), (_, then)) in numbers.filter(|((_, now), _)| *now > 0) {
                eprint!("{name} {now} (+{}) ", now - then);
            }
            eprintln!();
            before = counters;
        }
    }
}

impl Flags {
    fn mtu(&self) -> u32 {
        // IPv4 or IPv6 header and UDP header.
        let overhead = if self.local.iter().any(SocketAddr::is_ipv6) { 48 } else { 28 };
        self.mtu.unwrap_or(1500 - overhead)
    }

    /// Configures the device like the daemon's kernel half does for a planned TUN device.
    fn configure(&self) -> Result<()> {
        let device = self.device;
        ip(&format!("link set {device} mtu {} up", self.mtu()))?;
        for address in &self.address {
            let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
            ip(&format!("addr add {address} dev {device}{nodad}"))?;
        }
        for (subnet, _) in &self.peer {
            ip(&format!("route add {subnet} dev {device}"))?;
        }
        Ok(())
    }
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status().context("running ip")?;
    if !status.success() {
        bail!("`ip {arguments}` failed");
    }
    Ok(())
}

/// Supports only IPv4, like flannel's loop.
fn one_packet_per_syscall(flags: &Flags) -> Result<()> {
    let [local] = flags.local[..] else { bail!("one packet a system call takes one --local") };
    let device = DeviceBuilder::new().name(flags.device.as_str()).build_sync()?;
    device.set_nonblocking(true)?;
    let socket = UdpSocket::bind(local).with_context(|| format!("binding {local}"))?;
    socket.set_nonblocking(true)?;
    flags.configure()?;
    let mut buffer = vec![0; 65_536];
    loop {
        let mut waiting = [
            PollFd::new(device.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut waiting, PollTimeout::NONE)?;
        // One packet per direction in turn, and no poll as long as there are any.
        while out(&device, &socket, flags, local.port(), &mut buffer)?
            | inbound(&device, &socket, &mut buffer)?
        {}
    }
}

/// Returns true if there was a packet.
fn out(
    device: &SyncDevice,
    socket: &UdpSocket,
    flags: &Flags,
    port: u16,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let length = match device.recv(buffer) {
        Ok(length) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
        Err(error) => return Err(error),
    };
    let packet = &mut buffer[..length];
    if let Some(destination) = destination(packet)
        && let Some((_, peer)) = flags.peer.iter().find(|(subnet, _)| subnet.contains(&destination))
        && decrement_ttl(packet)
    {
        // Like flannel's: a packet that cannot be sent now is lost.
        let _ = socket.send_to(packet, (*peer, port));
    }
    Ok(true)
}

/// Returns true if there was a packet.
fn inbound(device: &SyncDevice, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<bool> {
    let length = match socket.recv_from(buffer) {
        Ok((length, _)) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
        Err(error) => return Err(error),
    };
    let packet = &mut buffer[..length];
    if destination(packet).is_some() && decrement_ttl(packet) {
        // Like flannel's: a packet that cannot be delivered now is lost.
        let _ = device.send(packet);
    }
    Ok(true)
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [.., a, b, c, d] = *header;
    (header[0] >> 4 == 4).then(|| Ipv4Addr::new(a, b, c, d).into())
}

/// Decrements the time to live and updates the checksum (RFC 1141), like flannel's `decrement_ttl`.
fn decrement_ttl(packet: &mut [u8]) -> bool {
    if packet[8] <= 1 {
        return false;
    }
    packet[8] -= 1;
    let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]])) + 0x100;
    // The carry is added once; like there, what is above 16 bits is dropped.
    let sum = ((sum + (sum >> 16)) & 0xffff) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    true
}
