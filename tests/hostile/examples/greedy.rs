//! Asks for every capability there is.

use heddle_hostile::{Malice, hostile};

/// The hostile plugin.
pub struct Greedy;

impl Malice for Greedy {}

hostile!(
    Greedy,
    name = "greedy",
    links = ["*"],
    link_kinds = ["vxlan", "tun"],
    routes = ["0.0.0.0/0"],
    udp_ports = ["1-65535"],
    sysctls = ["*"],
    files = ["/etc/"]
);
