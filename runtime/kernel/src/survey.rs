//! What there is besides what the daemon plans: everybody's devices, for whoever looks for what is in the way
//! (`heddle doctor`). Nothing here is used by the daemon.

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

/// Somebody's network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: LinkName,
    /// The kernel's name of its kind; empty for hardware.
    pub kind: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its alias; empty if it has none. See [`ALIAS_PREFIX`](crate::ALIAS_PREFIX).
    pub alias: String,
    /// The bridge that it is a port of, or another device that it belongs to in this way.
    pub master: Option<LinkName>,
    /// What a VXLAN device receives.
    pub vxlan: Option<VxlanPort>,
}

/// What a VXLAN device receives.
///
/// The kernel has one UDP socket for all devices whose port, family and kind of header are the same, and takes no port
/// twice (`vxlan_find_sock` in `drivers/net/vxlan/vxlan_core.c`). Such devices are told apart by their VNI.
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
    /// What no planned device has: the generic protocol extension, or metadata from routes (`external`).
    pub special: bool,
}

/// Why a VXLAN device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// There is no place to try it at.
    #[error("cannot make a network namespace to try it in: {0}")]
    Namespace(#[source] io::Error),
    /// The kernel has no such devices, or does not let this process have one.
    #[error("{0}")]
    Refused(Refusal),
}

/// Makes a VXLAN device where nobody sees it: in a network namespace that is gone when this returns. Only this tells
/// whether the kernel has them, built in or in a module that it can load, and it has that module loaded.
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
        // Whatever the reason, it is no way.
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
