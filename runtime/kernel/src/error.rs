//! Errors, worded so that an operator can act on them.

use std::fmt;
use std::io;
use std::path::PathBuf;

use heddle_core::address::LinkName;
use heddle_core::diff::ObjectChange;
use heddle_core::object::{LinkKind, Object, RouteAction};
use ipnet::IpNet;
use nix::errno::Errno;

/// The kernel's refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) errno: Errno,
    /// The kernel's error message (`NLMSGERR_ATTR_MSG`), if it sent one.
    pub(crate) message: Option<String>,
}

impl Refusal {
    /// Returns the error number, as in errno(3).
    pub fn errno(&self) -> i32 {
        self.errno as i32
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let errno = match error.raw_os_error().map(Errno::from_raw) {
            // A receive that times out ends with EAGAIN (`SO_RCVTIMEO`, socket(7)).
            Some(Errno::EAGAIN) => Errno::ETIMEDOUT,
            Some(errno) => errno,
            None => Errno::EIO,
        };
        Self { errno, message: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.errno.desc(), self.errno)?;
        match &self.message {
            Some(message) => write!(f, ", the kernel says: {message}"),
            None => Ok(()),
        }
    }
}

/// The reason why something could not be read from the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket, or no thread for it, could be created.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot read {what}: {refusal}")]
    Refused {
        /// The object of the request.
        what: &'static str,
        /// The kernel's reason.
        refusal: Refusal,
    },
    /// The counters of the devices cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    LinkCounters {
        /// The file.
        path: &'static std::path::Path,
        /// The I/O error.
        source: io::Error,
    },
    /// The kernel did not answer in time.
    #[error("cannot read {what}: the kernel gave no answer within {} s", crate::DEADLINE.as_secs())]
    NoAnswer {
        /// The object of the request.
        what: &'static str,
    },
}

/// A change that was not made, or whose outcome is unknown ([`ApplyError::NoAnswer`]). A device
/// that was to be replaced may be gone, so observe again before retrying.
#[derive(Debug, thiserror::Error)]
#[error("cannot {} {}: {error}", verb(change), change.object())]
pub struct Failure {
    /// The change.
    pub change: ObjectChange,
    /// The reason for the failure.
    #[source]
    pub error: ApplyError,
}

fn verb(change: &ObjectChange) -> &'static str {
    match change {
        ObjectChange::Create(_) | ObjectChange::Put(_) => "put",
        ObjectChange::Replace(_) => "replace",
        ObjectChange::Remove(_) => "remove",
    }
}

/// The reason why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused.
    #[error("{refusal}{}", Hint(*hint))]
    Refused {
        /// The kernel's reason.
        refusal: Refusal,
        /// A likely remedy.
        hint: Option<&'static str>,
    },
    /// The TUN device does not exist: the program behind it has not created it.
    #[error("no program has opened the TUN device {0}")]
    NotOpen(LinkName),
    /// The device that the object needs does not exist.
    #[error("there is no device {0}")]
    NoDevice(LinkName),
    /// A device of that name belongs to another Heddle daemon, for another network, and may not be
    /// changed.
    #[error(
        "{name} belongs to another heddled (alias `{alias}`): \
         change Backend.VNI of one of the two networks, \
         or, if that daemon is gone, remove the device with `ip link delete {name}`"
    )]
    AnotherDaemons {
        /// The device's name.
        name: LinkName,
        /// The device's alias, `heddle /coreos.com/network`.
        alias: String,
    },
    /// A device of that name was not made by any Heddle daemon and may not be changed.
    #[error(
        "{name} exists and is a {kind} that heddled did not create: \
         remove it with `ip link delete {name}` or change Backend.VNI"
    )]
    Foreign {
        /// The device's name.
        name: LinkName,
        /// The kind of the device, such as `bridge`.
        kind: String,
    },
    /// Another program has created a route where a new one was to be created.
    #[error("route {0}: another program added one meanwhile; comparing again")]
    Appeared(IpNet),
    /// A sysctl could not be written.
    #[error("cannot write {}: {source}{}", path.display(), Hint(sysctl_hint(source)))]
    Sysctl {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// Not a sysctl of a single device.
    #[error("not a setting of a single device")]
    NotASetting,
    /// An object that can be observed, but not planned.
    #[error("objects of this kind cannot be created")]
    NotPlannable,
    /// The kernel did not answer in time; the change may or may not have been made.
    #[error("the kernel gave no answer within {} s", crate::DEADLINE.as_secs())]
    NoAnswer,
}

/// Returns who can set a sysctl that heddled cannot write.
fn sysctl_hint(error: &io::Error) -> Option<&'static str> {
    let errno = Errno::from_raw(error.raw_os_error()?);
    Some(match errno {
        Errno::EROFS => {
            "it is mounted read-only here, so whoever starts this container has to mount /proc/sys/net writable, or set it in \
             `default` in the place of the device, which a new device takes it from"
        }
        Errno::EACCES | Errno::EPERM => {
            "only root of the user namespace that owns this network namespace can"
        }
        Errno::ENOENT => "this kernel does not have the setting",
        _ => return None,
    })
}

struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl From<Refusal> for ApplyError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal, hint: None }
    }
}

impl ApplyError {
    /// Adds what is known about the cause of a refusal, given the object of the change.
    pub(crate) fn with_hint(self, object: &Object) -> Self {
        match self {
            Self::Refused { refusal, .. } => {
                Self::Refused { hint: hint(refusal.errno, object), refusal }
            }
            other => other,
        }
    }
}

fn hint(errno: Errno, object: &Object) -> Option<&'static str> {
    let vxlan = matches!(object, Object::Link(link) if matches!(link.kind, LinkKind::Vxlan(_)));
    let forwards = matches!(object, Object::Route(route) if matches!(route.action, RouteAction::Forward { .. }));
    Some(match errno {
        Errno::EPERM => "it takes CAP_NET_ADMIN in this network namespace",
        Errno::EEXIST if vxlan => {
            "another device has the same VNI and UDP port: see `ip -d link show type vxlan`"
        }
        Errno::EADDRINUSE if vxlan => "another program has the UDP port: see `ss -lunp`",
        Errno::EOPNOTSUPP if vxlan => {
            "the kernel lacks VXLAN: load the module with `modprobe vxlan`"
        }
        Errno::EINVAL | Errno::ERANGE if vxlan => {
            "if it is the MTU: the underlay's less 50 bytes (IPv6 underlay: 70) is the most a VXLAN device can have"
        }
        // IPv6 reports EHOSTUNREACH.
        Errno::ENETUNREACH | Errno::EHOSTUNREACH if forwards => {
            "the gateway is on no network of that device"
        }
        Errno::ENETDOWN if forwards => "the device is down",
        Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT if is_of_ipv6(object) => {
            "IPv6 may be disabled: see `sysctl net.ipv6.conf.all.disable_ipv6`"
        }
        Errno::ENOSPC if is_of_ipv6(object) => {
            "a table of the kernel is full: see `sysctl net.ipv6.route.max_size`"
        }
        Errno::ENOBUFS if matches!(object, Object::Neighbour(_)) => {
            "the neighbour table is full: raise `net.ipv4.neigh.default.gc_thresh3`"
        }
        Errno::ENODEV => "a device it needs has just gone",
        _ => return None,
    })
}

/// Returns true for an address, a neighbour or a route of IPv6.
fn is_of_ipv6(object: &Object) -> bool {
    match object {
        Object::Address(address) => address.network.addr().is_ipv6(),
        Object::Neighbour(neighbour) => neighbour.address.is_ipv6(),
        Object::Route(route) => route.destination.addr().is_ipv6(),
        Object::Link(_) | Object::Sysctl(_) | Object::FdbEntry(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_core::object::{Address, Link, Vxlan};

    #[test]
    fn hint_about_ipv6_is_for_objects_of_ipv6() {
        let address = |network: &str| {
            let network = network.parse().unwrap();
            Object::Address(Address { link: "flannel.1".parse().unwrap(), network })
        };
        for errno in [Errno::EACCES, Errno::EAFNOSUPPORT, Errno::ENOSPC] {
            assert!(hint(errno, &address("fd00::/128")).unwrap().contains("ipv6"), "{errno}");
            assert_eq!(hint(errno, &address("10.244.3.0/32")), None, "{errno}");
            assert_eq!(hint(errno, device().object()), None, "{errno}");
        }
    }

    fn device() -> ObjectChange {
        ObjectChange::Put(Object::Link(Link {
            name: "flannel.1".parse().unwrap(),
            mtu: 1450,
            mac: None,
            up: true,
            kind: LinkKind::Vxlan(Vxlan {
                vni: 1,
                local: "192.168.0.72".parse().unwrap(),
                underlay: "eth0".parse().unwrap(),
                port: 8472,
                learning: false,
                gbp: false,
            }),
        }))
    }

    #[test]
    fn failure_names_object_cause_and_remedy() {
        let refusal = Refusal {
            errno: Errno::EEXIST,
            message: Some("A VXLAN device with the specified VNI already exists".into()),
        };
        let change = device();
        let error = ApplyError::from(refusal).with_hint(change.object());
        assert_eq!(
            Failure { change, error }.to_string(),
            "cannot put link flannel.1 type vxlan mtu 1450 id 1 local 192.168.0.72 dev eth0 dstport 8472 nolearning up: \
             File exists (EEXIST), the kernel says: A VXLAN device with the specified VNI already exists; \
             another device has the same VNI and UDP port: see `ip -d link show type vxlan`"
        );
    }

    #[test]
    fn expired_receive_is_a_timeout() {
        let refusal = Refusal::from(io::Error::from_raw_os_error(Errno::EAGAIN as i32));
        assert_eq!(refusal.errno, Errno::ETIMEDOUT);
    }
}
