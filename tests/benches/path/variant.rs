//! The ways of carrying packets that are compared.

/// Means of carrying packets between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    /// Two daemons with the host-gw backend: only the network between the hosts, and a route on
    /// each.
    Bare,
    /// The kernel's VXLAN device, programmed by two daemons.
    Vxlan,
    /// Two daemons with the udp backend.
    Udp,
    /// The udp backend's packet loop with the steering compiled in (`carry` of `runtime/packet`).
    Native,
    /// Two daemons with the vxlan-tun backend: every byte passes through the plugin.
    VxlanTun,
    /// One packet per system call, like flannel's loop in C (`carry --one-packet-per-syscall`).
    Naive,
}

impl Variant {
    pub(crate) const ALL: [Self; 6] =
        [Self::Bare, Self::Vxlan, Self::Udp, Self::Native, Self::VxlanTun, Self::Naive];

    /// Returns the name used in arguments and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Vxlan => "vxlan",
            Self::Udp => "udp",
            Self::Native => "native",
            Self::VxlanTun => "vxlan-tun",
            Self::Naive => "naive",
        }
    }

    /// Returns the label used in plots.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Bare => "no overlay",
            Self::Vxlan => "kernel VXLAN",
            Self::Udp => "udp",
            Self::Native => "udp, compiled in",
            Self::VxlanTun => "vxlan-tun",
            Self::Naive => "one per syscall",
        }
    }

    /// Returns the label used in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Bare => "no overlay",
            Self::Vxlan => "kernel VXLAN",
            Self::Udp => "udp, steered by its plugin",
            Self::Native => "udp, steering compiled in",
            Self::VxlanTun => "vxlan-tun, its plugin transforms",
            Self::Naive => "one packet per system call",
        }
    }
}
