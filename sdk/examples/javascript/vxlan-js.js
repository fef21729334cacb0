// The `vxlan-js` backend: the built-in `vxlan` with the keys VNI and Port, in JavaScript.
//
// A packet for a peer's subnet is routed to the subnet's network address, `onlink` on a VXLAN
// device. A permanent neighbour entry maps that address to the MAC of the peer's device, and a
// permanent FDB entry sends frames for this MAC to the peer's public address. Nothing is flooded or
// learned. Dual stack has a device for each family.
//
// A record of the interface is an object here, a variant `{ tag, val }`, an absent option
// `undefined`, and an address an array of numbers. An exception is the error of a function's
// result.

const NAME = 'vxlan-js';

// Properties of each family.
const FAMILIES = {
  ipv4: {
    device: 'flannel.',
    // Largest VNI for which the device's name has at most 15 bytes.
    mostVni: 9_999_999,
    // Field of a lease.
    field: 'BackendData',
    // Length of an address in bits.
    bits: 32,
    // Smallest MTU of the family (RFC 791, section 3.2).
    leastMtu: 68,
    // Outer IP header, UDP and VXLAN headers, inner Ethernet header.
    overhead: 20 + 8 + 8 + 14,
  },
  ipv6: {
    device: 'flannel-v6.',
    mostVni: 9999,
    field: 'BackendV6Data',
    bits: 128,
    // RFC 8200, section 5.
    leastMtu: 1280,
    overhead: 40 + 8 + 8 + 14,
  },
};

// Linux's default port for VXLAN.
const DEFAULT_PORT = 8472;

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

export const backend = {
  advertise(config, node) {
    const { vni } = readSettings(config);
    const families = config.networks.map(({ network }) => {
      const mac = deviceMac(node, network.address.tag, vni);
      return { backendData: JSON.stringify({ VNI: vni, VtepMAC: macText(mac) }) };
    });
    return { backendType: NAME, families };
  },

  planNode(config, node, lease) {
    const { vni, port } = readSettings(config);
    const { underlay } = node;
    const plan = emptyPlan();
    let mtu = Infinity;
    for (const { subnet, publicAddress } of lease.families) {
      const { tag } = publicAddress;
      const { leastMtu, overhead, bits } = FAMILIES[tag];
      // No packet is longer, although the loopback interface has a larger MTU.
      const own = Math.min(underlay.mtu, 65_535) - overhead;
      if (own < leastMtu) {
        throw {
          key: 'Backend.Type',
          message: `is for interfaces with an MTU of ${leastMtu + overhead} or more: `
            + `that of ${underlay.link} is ${underlay.mtu}`,
        };
      }
      mtu = Math.min(mtu, own);
      const device = deviceName(tag, vni);
      plan.links.push({
        name: device,
        mtu: own,
        mac: deviceMac(node, tag, vni),
        kind: {
          tag: 'vxlan',
          val: {
            vni,
            local: localAddress(underlay, publicAddress),
            underlay: underlay.link,
            port,
            learning: false,
            gbp: false,
          },
        },
      });
      // No host on the overlay may configure routes on this node.
      plan.sysctls.push({ link: device, family: 'ipv6', name: 'accept_ra', value: '0' });
      plan.addresses.push({ link: device, network: { address: subnet.address, prefixLength: bits } });
    }
    return { plan, mtu };
  },

  planPeer(config, node, lease, peer) {
    if (peer.backendType !== NAME) {
      // Leases of flannel's udp backend have no backend type.
      throw { tag: 'other-backend', val: peer.backendType ?? 'udp' };
    }
    const { vni } = readSettings(config);
    const plan = emptyPlan();
    for (const own of lease.families) {
      const { tag } = own.publicAddress;
      const part = peer.families.find(({ publicAddress }) => publicAddress.tag === tag);
      if (part === undefined) continue;
      const { subnet, publicAddress } = part;
      if ([own.publicAddress, ...node.underlay.publicAddresses].some((ours) => isSame(ours, publicAddress))) {
        throw invalid("its public address is this node's own: expected the address of another node");
      }
      const device = deviceName(tag, vni);
      const mac = peerMac(part, vni);
      const gateway = subnet.address;
      plan.routes.push({
        destination: subnet,
        action: { tag: 'forward', val: { link: device, gateway, onlink: true } },
      });
      plan.neighbours.push({ link: device, address: gateway, mac });
      plan.fdbEntries.push({ link: device, mac, destination: publicAddress });
    }
    return plan;
  },
};

function emptyPlan() {
  return { links: [], sysctls: [], addresses: [], routes: [], neighbours: [], fdbEntries: [] };
}

// ---- The network config ------------------------------------------------------------------------

function readSettings(config) {
  const fail = (key, message) => {
    throw { key, message };
  };
  const backend = readObject('Backend', config.backend, fail);
  const vni = readInteger('Backend', backend, 'VNI', 0xff_ffff, fail) ?? 1;
  for (const { network } of config.networks) {
    const { mostVni } = FAMILIES[network.address.tag];
    if (vni > mostVni) {
      const name = deviceName(network.address.tag, vni);
      fail('Backend.VNI', `is ${vni}: expected at most ${mostVni}, because the device's name ${name} may have 15 bytes`);
    }
  }
  // As in flannel, 0 selects the default.
  return { vni, port: readInteger('Backend', backend, 'Port', 0xffff, fail) || DEFAULT_PORT };
}

// ---- JSON, as flannel reads it: case-insensitive keys, null for absent --------------------------

function readObject(name, text, fail) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    fail(name, `is not a JSON object: ${error.message}`);
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    fail(name, 'is not a JSON object');
  }
  return value;
}

function readMember(name, object, key, fail) {
  const found = Object.entries(object).filter(([other]) => other.toLowerCase() === key.toLowerCase());
  if (found.length > 1) fail(`${name}.${key}`, 'is given more than once (case does not matter)');
  const [[, value] = []] = found;
  return value ?? undefined;
}

function readInteger(name, object, key, most, fail) {
  const value = readMember(name, object, key, fail);
  if (value !== undefined && !(Number.isInteger(value) && value >= 0 && value <= most)) {
    fail(`${name}.${key}`, `is ${shown(value)}: expected a whole number from 0 to ${most}`);
  }
  return value;
}

// Formats a value for a message.
function shown(value) {
  const text = [...JSON.stringify(value)];
  return text.length > 60 ? `${text.slice(0, 60).join('')}…` : text.join('');
}

// ---- Devices and addresses ---------------------------------------------------------------------

function deviceName(tag, vni) {
  return FAMILIES[tag].device + vni;
}

// An existing device keeps its MAC, so that peers need not learn a new one. The MAC of a new device
// is derived from the node's identity and address, so that a recreated device has the same one and
// cloned machines have different ones: 48 bits of FNV-1a.
function deviceMac(node, tag, vni) {
  const name = deviceName(tag, vni);
  const existing = node.links.find((link) => link.name === name && link.kind === 'vxlan');
  if (existing?.mac !== undefined && isUnicast(existing.mac)) return existing.mac;
  const address = node.underlay.publicAddresses.find((address) => address.tag === tag);
  let hash = 0xcbf29ce484222325n;
  for (const character of [node.id, address?.val.join('.'), name].join('\0')) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(character.codePointAt(0))) * 0x100000001b3n);
  }
  const mac = Array.from({ length: 6 }, (_, at) => Number((hash >> BigInt(8 * at)) & 0xffn));
  // Unicast, and locally administered.
  mac[0] = (mac[0] & ~0b01) | 0b10;
  return mac;
}

// Reads the MAC of a peer's end point from its lease, which another node wrote.
function peerMac(part, vni) {
  const { field } = FAMILIES[part.publicAddress.tag];
  const fail = (key, message) => {
    throw invalid(`${key} ${message}`);
  };
  if (part.backendData === undefined) {
    fail(field, `is missing: expected an object such as {"VNI":${vni},"VtepMAC":"3a:8b:71:f2:2e:de"}`);
  }
  const data = readObject(field, part.backendData, fail);
  const theirs = readInteger(field, data, 'VNI', 0xff_ffff, fail) ?? vni;
  if (theirs !== vni) fail(`${field}.VNI`, `is ${theirs}: expected ${vni}, as in the network config`);
  const text = readMember(field, data, 'VtepMAC', fail);
  if (typeof text !== 'string' || !MAC.test(text)) {
    const rule = 'expected six hexadecimal octets with colons, 3a:8b:71:f2:2e:de';
    fail(`${field}.VtepMAC`, `is ${shown(text ?? null)}: ${rule}`);
  }
  const mac = text.split(':').map((octet) => parseInt(octet, 16));
  if (!isUnicast(mac)) fail(`${field}.VtepMAC`, `is ${text}: expected a unicast address`);
  return mac;
}

// Returns the source address of packets to peers that know this node by a public address: that one
// if the interface has it, otherwise (behind NAT) the interface's own.
function localAddress(underlay, publicAddress) {
  const own = underlay.addresses.map(({ address }) => address).filter(({ tag }) => tag === publicAddress.tag);
  return own.find((address) => isSame(address, publicAddress))
    ?? own.find((address) => !isLinkLocal(address))
    ?? own[0]
    ?? publicAddress;
}

function isSame(one, other) {
  return one.tag === other.tag && one.val.every((part, at) => part === other.val[at]);
}

function isLinkLocal({ tag, val }) {
  return tag === 'ipv4' ? val[0] === 169 && val[1] === 254 : (val[0] & 0xffc0) === 0xfe80;
}

function isUnicast(mac) {
  return (mac[0] & 1) === 0 && mac.some((octet) => octet !== 0);
}

function macText(mac) {
  return mac.map((octet) => octet.toString(16).padStart(2, '0')).join(':');
}

function invalid(message) {
  return { tag: 'invalid', val: message };
}
