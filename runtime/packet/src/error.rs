//! Errors of opening a path, worded so that an operator can act on them.

use std::io;
use std::net::SocketAddr;

use heddle_core::address::LinkName;

/// The reason why a path cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A device of that name exists, and does not belong to this daemon.
    #[error(
        "device {0} exists already: stop the program that has it open (another heddled, flanneld) \
         or remove it with `ip link delete {0}`"
    )]
    DeviceExists(LinkName),
    /// The TUN device cannot be created.
    #[error("cannot create the TUN device {device}: {source}{}", device_hint(source))]
    Device {
        /// The device's name.
        device: LinkName,
        /// The I/O error.
        source: io::Error,
    },
    /// A socket to send and receive on cannot be opened.
    #[error("cannot use UDP {local}: {source}{}", socket_hint(source))]
    Socket {
        /// The address to bind.
        local: SocketAddr,
        /// The I/O error.
        source: io::Error,
    },
    /// A thread, or the eventfd that stops it, cannot be created.
    #[error("cannot start the packet path: {0}")]
    Start(#[source] io::Error),
}

fn device_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; /dev/net/tun is missing: load the module with `modprobe tun`, and let a container have the file"
        }
        io::ErrorKind::PermissionDenied => {
            "; it takes CAP_NET_ADMIN and write access to /dev/net/tun"
        }
        io::ErrorKind::ResourceBusy => "; another program has it open",
        _ => "",
    }
}

fn socket_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has the port: see `ss -lunp`, or change Backend.Port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no interface has the address: see `ip address`, and --public-ip"
        }
        io::ErrorKind::Unsupported => {
            "; IPv6 may be disabled: see `sysctl net.ipv6.conf.all.disable_ipv6`"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_error_names_object_and_remedy() {
        let error = OpenError::Socket {
            local: "192.0.2.1:8285".parse().unwrap(),
            source: io::Error::from_raw_os_error(nix::libc::EADDRINUSE),
        };
        assert_eq!(
            error.to_string(),
            "cannot use UDP 192.0.2.1:8285: Address already in use (os error 98); \
             another program has the port: see `ss -lunp`, or change Backend.Port"
        );
    }
}
