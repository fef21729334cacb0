"""The `subnet-json` emitter: writes the node's subnet for programs that read JSON.

Setting `path`: path of the file, `/run/flannel/subnet.json` by default.
"""

import json
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.emitter import File, Setting, View
from wit_world.imports.types import IpAddress_Ipv4, IpNetwork

DEFAULT_PATH = "/run/flannel/subnet.json"


class Emitter(exports.Emitter):
    """The world's export, by its name there."""

    def emit(self, view: View, settings: list[Setting]) -> list[File]:
        path = DEFAULT_PATH
        for setting in settings:
            if setting.name != "path":
                raise Err(f"setting `{setting.name}` is unknown: expected `path`")
            path = setting.value
        text = json.dumps(describe(view), indent=2) + "\n"
        return [File(path=path, mode=0o644, contents=text.encode())]


def describe(view: View) -> dict:
    """Returns the content of `subnet.env`, with one network per family, IPv4 first."""
    subnets = {subnet.version: subnet for subnet in (network(part.subnet) for part in view.lease.families)}
    networks = []
    for overlay in (network(part.network) for part in view.config.networks):
        subnet = subnets.get(overlay.version)
        if subnet is None:
            raise Err(f"the lease has no subnet in {overlay}")
        # The first usable address, which is the containers' gateway.
        bridge = ip_interface((subnet.network_address + 1, subnet.prefixlen))
        networks.append({"network": str(overlay), "subnet": str(subnet), "bridge": str(bridge)})
    return {"networks": networks, "mtu": view.mtu, "ip-masq": view.ip_masq}


def network(given: IpNetwork):
    """Converts a network of the interface to Python's type."""
    match given.address:
        case IpAddress_Ipv4(octets):
            address = IPv4Address(bytes(octets))
        case other:
            address = IPv6Address(b"".join(group.to_bytes(2, "big") for group in other.value))
    return ip_network((address, given.prefix_length))
