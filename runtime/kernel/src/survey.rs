//! A survey of all devices of the host, planned or not, to find conflicts (`heddle doctor`). The
//! daemon uses nothing in this module.

use std::io;
use std::net::IpAddr;
use std::thread;

use heddle_core::address::{Family, LinkName};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVxlan;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};

use crate::error::{KernelError, Refusal};
use crate::links::{Device, Devices};
use crate::observe::{Reading, devices};
use crate::socket::{Request, Socket};
use crate::{links, routes};

/// A network device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: LinkName,
    /// The kernel's name of its kind; empty for hardware.
    pub kind: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// True if it is administratively up.
    pub up: bool,
    /// Its alias; empty if it has none. See [`ALIAS_PREFIX`](crate::ALIAS_PREFIX).
    pub alias: String,
    /// The device that it is enslaved to: a bridge, a bond, a VRF.
    pub master: Option<LinkName>,
    /// The receiving side, of a VXLAN device.
    pub vxlan: Option<VxlanPort>,
}

/// The packets that a VXLAN device receives.
///
/// The kernel has one UDP socket for all devices with the same port, family and header format, and
/// opens no port twice (`vxlan_find_sock` in `drivers/net/vxlan/vxlan_core.c`). Such devices are
/// distinguished by their VNI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanPort {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// The families of the outer packets.
    pub families: Vec<Family>,
    /// Group-based policy extension.
    pub gbp: bool,
    /// True for features that no planned device has: the generic protocol extension, or metadata
    /// from routes (`external`).
    pub special: bool,
}

/// The reason why a VXLAN device could not be created.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// No network namespace, socket or thread for the attempt could be created.
    #[error("cannot create a network namespace for the trial: {0}")]
    Namespace(#[source] io::Error),
    /// The kernel does not support VXLAN devices, or refuses one to this process.
    #[error("{0}")]
    Refused(Refusal),
}

/// Creates a VXLAN device in a temporary network namespace. This is the only way to find out
/// whether the kernel supports VXLAN, built in or as a loadable module; it also makes the kernel
/// load that module.
///
/// Blocks for some milliseconds. Needs root.
///
/// # Errors
///
/// [`TrialError`].
pub fn try_vxlan() -> Result<(), TrialError> {
    let work = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| TrialError::Namespace(e.into()))?;
        let mut socket = Socket::open().map_err(TrialError::Namespace)?;
        let message = LinkVxlan::new("trial", 1).port(8472).build();
        let message = RouteNetlinkMessage::NewLink(message);
        let request = Request { message, flags: NLM_F_CREATE | NLM_F_EXCL };
        socket.change(request).map_err(TrialError::Refused)
    };
    // A namespace lives as long as the threads in it.
    let thread = thread::Builder::new().name("trial".into()).spawn(work);
    let done = thread.map_err(TrialError::Namespace)?.join();
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn host_links(socket: &mut Socket) -> Result<Vec<HostLink>, KernelError> {
    let found = socket.dump(links::all(), |message| match message {
        RouteNetlinkMessage::NewLink(message) => {
            let device = Device::decode(&message)?;
            Some((device, vxlan_port(&message)))
        }
        _ => None,
    });
    let found = found.reading("the devices")?;
    let name = |index| found.iter().find(|(d, _)| d.index == index).map(|(d, _)| d.name);
    let link = |(device, vxlan): &(Device, Option<VxlanPort>)| HostLink {
        name: device.name,
        kind: device.kind.clone(),
        mtu: device.mtu,
        up: device.up,
        alias: device.alias.clone(),
        master: device.controller.and_then(name),
        vxlan: vxlan.clone(),
    };
    Ok(found.iter().map(link).collect())
}

pub(crate) fn ways(
    socket: &mut Socket,
    source: IpAddr,
    destinations: &[IpAddr],
) -> Result<Vec<Option<LinkName>>, KernelError> {
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let mut way = |destination: &IpAddr| {
        // No usable route, whatever the reason.
        let answer = socket.get(routes::from_to(source, *destination)).ok()?;
        let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
        let (index, _) = routes::way(&message)?;
        devices.get(index).map(|device| device.name)
    };
    Ok(destinations.iter().map(&mut way).collect())
}

fn vxlan_port(message: &LinkMessage) -> Option<VxlanPort> {
    let infos = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let options = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(options)) => Some(options),
        _ => None,
    })?;
    let (mut vni, mut port, mut external) = (0, None, false);
    let mut families = vec![Family::V4];
    let (mut gbp, mut gpe) = (false, false);
    for option in options {
        match option {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Port(number) => port = Some(*number),
            InfoVxlan::Local6(_) | InfoVxlan::Group6(_) => families = vec![Family::V6],
            InfoVxlan::CollectMetadata(on) => external = *on,
            InfoVxlan::Gbp => gbp = true,
            InfoVxlan::Gpe => gpe = true,
            _ => {}
        }
    }
    if external {
        families = vec![Family::V4, Family::V6];
    }
    Some(VxlanPort { vni, port: port?, families, gbp, special: gpe || external })
}
