//! Applies changes to the kernel.

use std::collections::HashMap;

use heddle_core::address::LinkName;
use heddle_core::diff::{ObjectChange, Scope};
use heddle_core::host_network::HostAddress;
use heddle_core::object::{Link, LinkKind, Object};
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::error::{ApplyError, KernelError, Refusal};
use crate::links::{self, Device};
use crate::observe::{Reading, devices};
use crate::socket::{BATCH, Request, Socket};
use crate::view::{changeable, made_by, made_by_another};
use crate::{addresses, neighbours, routes, sysctls};

/// Applies the changes in order. Returns the failures with the position of their change.
pub(crate) fn apply(
    socket: &mut Socket,
    scope: &Scope,
    changes: &[ObjectChange],
) -> Vec<(usize, ApplyError)> {
    let mut run =
        Run { socket, scope, changes, indices: HashMap::new(), waiting: vec![], failures: vec![] };
    for position in 0..changes.len() {
        run.take(position);
    }
    run.flush();
    run.failures
}

/// Re-creates the kernel's connected routes of IPv4 addresses. Returns those that failed, with the
/// reason.
///
/// Skips IPv6 addresses: the kernel's connected routes for them have their own metric, so no route
/// of ours ever replaced one.
pub(crate) fn restore_connected(
    socket: &mut Socket,
    addresses: Vec<HostAddress>,
) -> Result<Vec<(HostAddress, Refusal)>, KernelError> {
    let devices = devices(socket).reading("the devices")?;
    let mut refused = Vec::new();
    for address in addresses {
        let IpNet::V4(network) = address.network else { continue };
        let result = match devices.iter().find(|device| device.name == address.link) {
            Some(device) => socket.change(routes::connected(network, device.index)),
            None => Err(Refusal { errno: Errno::ENODEV, message: None }),
        };
        refused.extend(result.err().map(|refusal| (address, refusal)));
    }
    Ok(refused)
}

/// One pass over a list of changes. Devices and sysctls are changed one by one; all other changes
/// are batched.
struct Run<'a> {
    socket: &'a mut Socket,
    scope: &'a Scope,
    changes: &'a [ObjectChange],
    /// Indices of the devices looked up so far.
    indices: HashMap<LinkName, u32>,
    waiting: Vec<(usize, Request)>,
    failures: Vec<(usize, ApplyError)>,
}

impl Run<'_> {
    fn take(&mut self, position: usize) {
        let change = &self.changes[position];
        let result = match change.object() {
            Object::Link(link) => {
                self.flush();
                self.indices.remove(&link.name);
                self.change_link(change, link)
            }
            Object::Sysctl(sysctl) => {
                self.flush();
                match change {
                    ObjectChange::Create(_) | ObjectChange::Put(_) | ObjectChange::Replace(_) => {
                        sysctls::write(sysctl)
                    }
                    // A sysctl always exists; its previous value is unknown.
                    ObjectChange::Remove(_) => Ok(()),
                }
            }
            _ => self.request(change).map(|request| {
                self.waiting.extend(request.map(|request| (position, request)));
                if self.waiting.len() == BATCH {
                    self.flush();
                }
            }),
        };
        self.record(position, result);
    }

    /// Records the result of a change. This is where an error learns its change, for the hint.
    fn record(&mut self, position: usize, result: Result<(), ApplyError>) {
        let object = self.changes[position].object();
        self.failures.extend(result.err().map(|error| (position, error.with_hint(object))));
    }

    /// Sends the current batch.
    fn flush(&mut self) {
        let (positions, requests): (Vec<usize>, Vec<Request>) = self.waiting.drain(..).unzip();
        let results = self.socket.batch(&requests);
        for ((position, request), result) in positions.into_iter().zip(requests).zip(results) {
            let change = &self.changes[position];
            let result = match (result, change) {
                (Ok(()), _) => Ok(()),
                (Err(refusal), ObjectChange::Remove(_)) if is_gone(&refusal) => Ok(()),
                (Err(refusal), ObjectChange::Create(Object::Route(route)))
                    if refusal.errno == Errno::EEXIST =>
                {
                    Err(ApplyError::Appeared(route.destination))
                }
                (Err(refusal), _) => self.detour(request, refusal).map_err(ApplyError::from),
            };
            self.record(position, result);
        }
    }

    /// Retries a refused route in two steps, if the kernel's restriction has a known workaround.
    ///
    /// IPv6 refuses an on-link gateway while another route leads to that gateway, even if it is the
    /// route being replaced (`ip6_route_check_nh_onlink` in `net/ipv6/route.c`). The route is first
    /// replaced by one without a gateway, so that the destination is never without a route.
    ///
    /// IPv4 replaces the first of several routes to one destination, but refuses if the new route
    /// already exists further down the list (`fib_table_insert` in `net/ipv4/fib_trie.c`). That
    /// duplicate carries no traffic, so it is removed first.
    fn detour(&mut self, request: Request, refusal: Refusal) -> Result<(), Refusal> {
        let first = match refusal.errno {
            Errno::EINVAL => routes::without_gateway(&request),
            Errno::EEXIST => routes::undo(&request),
            _ => None,
        };
        match first.map(|first| self.socket.change(first)) {
            Some(Ok(())) => self.socket.change(request),
            _ => Err(refusal),
        }
    }

    /// Builds the request for a change of anything but devices and sysctls. `None` if nothing is
    /// left to do.
    fn request(&mut self, change: &ObjectChange) -> Result<Option<Request>, ApplyError> {
        let request = if is_removal(change) { self.removal(change) } else { self.addition(change) };
        match request {
            Err(ApplyError::NoDevice(_)) if is_removal(change) => Ok(None),
            result => result.map(Some),
        }
    }

    fn addition(&mut self, change: &ObjectChange) -> Result<Request, ApplyError> {
        Ok(match change.object() {
            Object::Address(address) => addresses::put(self.index(address.link)?, address.network),
            Object::FdbEntry(entry) => neighbours::put_fdb_entry(self.index(entry.link)?, entry),
            Object::Neighbour(neighbour) => {
                neighbours::put_neighbour(self.index(neighbour.link)?, neighbour)
            }
            Object::Route(route) => {
                let index = |link| self.index(link);
                let request = match change {
                    ObjectChange::Create(_) => routes::create(route, index)?,
                    _ => routes::put(route, index)?,
                };
                request.ok_or(ApplyError::NotPlannable)?
            }
            Object::Link(_) | Object::Sysctl(_) => return Err(ApplyError::NotPlannable),
        })
    }

    fn removal(&mut self, change: &ObjectChange) -> Result<Request, ApplyError> {
        Ok(match change.object() {
            Object::Address(address) => {
                addresses::remove(self.index(address.link)?, address.network)
            }
            Object::FdbEntry(entry) => neighbours::remove_fdb_entry(self.index(entry.link)?, entry),
            Object::Neighbour(neighbour) => {
                neighbours::remove_neighbour(self.index(neighbour.link)?, neighbour)
            }
            Object::Route(route) => routes::remove(route, |link| self.index(link))?,
            Object::Link(_) | Object::Sysctl(_) => return Err(ApplyError::NotPlannable),
        })
    }

    fn change_link(&mut self, change: &ObjectChange, link: &Link) -> Result<(), ApplyError> {
        let found = self.device(link.name)?;
        match change {
            ObjectChange::Remove(_) => match found {
                Some(device) if made_by(self.scope, &device) => Ok(self.delete(&device)?),
                // Already gone, or no longer the device that was observed.
                _ => Ok(()),
            },
            ObjectChange::Create(_) | ObjectChange::Put(_) | ObjectChange::Replace(_) => {
                if let Some(device) = found {
                    let name = device.name;
                    if made_by_another(self.scope, &device) {
                        return Err(ApplyError::AnotherDaemons { name, alias: device.alias });
                    }
                    if !changeable(self.scope, &device) {
                        return Err(ApplyError::Foreign { name, kind: device.kind });
                    }
                    if !matches!(change, ObjectChange::Replace(_)) {
                        return Ok(self.configure(link, &device)?);
                    }
                    // Look up what the new device needs while the old one still works.
                    let creation = self.creation(link)?;
                    self.delete(&device)?;
                    return self.create(link, creation);
                }
                let creation = self.creation(link)?;
                self.create(link, creation)
            }
        }
    }

    fn creation(&mut self, link: &Link) -> Result<Request, ApplyError> {
        match &link.kind {
            LinkKind::Vxlan(vxlan) => Ok(links::create(link, vxlan, self.index(vxlan.underlay)?)),
            LinkKind::Tun => Err(ApplyError::NotOpen(link.name)),
            LinkKind::Other(_) => Err(ApplyError::NotPlannable),
        }
    }

    fn create(&mut self, link: &Link, creation: Request) -> Result<(), ApplyError> {
        self.socket.change(creation)?;
        let device = self.device(link.name)?.ok_or(ApplyError::NoDevice(link.name))?;
        Ok(self.configure(link, &device)?)
    }

    fn configure(&mut self, link: &Link, device: &Device) -> Result<(), Refusal> {
        links::configure(device, link, &self.scope.alias)
            .into_iter()
            .try_for_each(|request| self.socket.change(request))
    }

    fn delete(&mut self, device: &Device) -> Result<(), Refusal> {
        match self.socket.change(links::delete(device.index)) {
            Err(refusal) if is_gone(&refusal) => Ok(()),
            result => result,
        }
    }

    fn index(&mut self, name: LinkName) -> Result<u32, ApplyError> {
        if let Some(index) = self.indices.get(&name) {
            return Ok(*index);
        }
        let index = self.device(name)?.ok_or(ApplyError::NoDevice(name))?.index;
        self.indices.insert(name, index);
        Ok(index)
    }

    fn device(&mut self, name: LinkName) -> Result<Option<Device>, Refusal> {
        match self.socket.get(links::named(name)) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Device::decode(&message)),
            Ok(_) => Ok(None),
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}

fn is_removal(change: &ObjectChange) -> bool {
    matches!(change, ObjectChange::Remove(_))
}

/// Returns true if a removal was refused because there is nothing to remove: no device, route,
/// neighbour, FDB entry or address.
fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal.errno, Errno::ENODEV | Errno::ESRCH | Errno::ENOENT | Errno::EADDRNOTAVAIL)
}
