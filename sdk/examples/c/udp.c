// The `udp-c` backend: the built-in `udp`, in C. The kernel routes the whole overlay into one TUN
// device, and the host sends each packet in a UDP datagram to the peer whose subnet contains its
// destination (steering.c).
//
// A function owns its arguments, and frees them. The bindings free its results. It returns true on
// success; otherwise `error` is the result.
#include <string.h>

#include "interface.h"
#include "message.h"
#include "port.h"

// flannel requests `flannel%d`, and the first such device gets this name.
static const char *const DEVICE = "flannel0";

// flannel's default port.
enum { DEFAULT_PORT = 8285 };

// For IPv4 and IPv6: bits of an address, smallest MTU of the family (RFC 791, RFC 8200), and length
// of the outer IP and UDP headers.
static const struct {
    uint8_t bits;
    uint32_t least_mtu;
    uint32_t headers;
} FAMILIES[] = { [IPV4] = { 32, 68, 20 + 8 }, [IPV6] = { 128, 1280, 40 + 8 } };

static uint32_t max(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

static void set(string *string, const char *text) {
    packet_backend_plugin_string_dup(string, text);
}

static void set_message(string *string, const struct message *message) {
    packet_backend_plugin_string_dup_n(string, message->bytes, message->length);
}

static bool complain(config_error *error, const char *key, const struct message *message) {
    set(&error->key, key);
    set_message(&error->message, message);
    return false;
}

static bool port_of(const network_config *config, uint16_t *port, config_error *error) {
    const char *key;
    struct message message = { .length = 0 };
    *port = DEFAULT_PORT;
    if (read_port((const char *)config->backend.ptr, config->backend.len, port, &key, &message)) return true;
    return complain(error, key, &message);
}

static bool is_same(const ip_address *one, const ip_address *other) {
    uint8_t bytes[2][LONGEST];
    to_bytes(one, bytes[0]);
    to_bytes(other, bytes[1]);
    return one->tag == other->tag && memcmp(bytes[0], bytes[1], LONGEST) == 0;
}

static bool is_link_local(const ip_address *address) {
    uint8_t bytes[LONGEST];
    to_bytes(address, bytes);
    if (address->tag == IPV4) return bytes[0] == 169 && bytes[1] == 254;
    return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

// Returns the source address of datagrams to peers that know this node by a public address: that
// one if the interface has it, otherwise (behind NAT) the interface's own.
static ip_address local_address(const underlay *underlay, const ip_address *public) {
    const ip_address *best = NULL;
    for (size_t i = 0; i < underlay->addresses.len; i++) {
        const ip_address *own = &underlay->addresses.ptr[i].address;
        if (own->tag != public->tag) continue;
        if (is_same(own, public)) return *public;
        if (best == NULL || (is_link_local(best) && !is_link_local(own))) best = own;
    }
    return best != NULL ? *best : *public;
}

// Returns the MTU of the device: that of the underlay, less the longest headers of the families in
// use.
static bool mtu_of(const network_config *config, const underlay *underlay, uint32_t *mtu, config_error *error) {
    uint32_t headers = 0, least = 0;
    for (size_t i = 0; i < config->networks.len; i++) {
        uint8_t family = config->networks.ptr[i].network.address.tag;
        headers = max(headers, FAMILIES[family].headers);
        least = max(least, FAMILIES[family].least_mtu + FAMILIES[family].headers);
    }
    // No packet is longer, although the loopback interface has a larger MTU.
    uint32_t outer = underlay->mtu < 65535 ? underlay->mtu : 65535;
    if (outer >= least) {
        *mtu = outer - headers;
        return true;
    }
    struct message message = { .length = 0 };
    add_text(&message, "is for interfaces with an MTU of ");
    add_number(&message, least);
    add_text(&message, " or more: that of ");
    add_bytes(&message, underlay->link.ptr, underlay->link.len);
    add_text(&message, " is ");
    add_number(&message, outer);
    return complain(error, "Backend.Type", &message);
}

bool exports_heddle_overlay_backend_advertise(
    network_config *config,
    node *node,
    exports_heddle_overlay_backend_advertisements_t *advertisements,
    config_error *error
) {
    uint16_t port;
    bool done = port_of(config, &port, error);
    if (done) {
        // As in flannel, the lease has no backend type and no backend data.
        advertisements->backend_type.is_some = false;
        ALLOCATE_LIST(&advertisements->families, config->networks.len);
    }
    heddle_overlay_types_network_config_free(config);
    heddle_overlay_types_node_free(node);
    return done;
}

// Plans the device, with an address in each family: the subnet's own, as the source of the node's
// own packets into the overlay.
static void plan(
    const network_config *config,
    const underlay *underlay,
    const lease *lease,
    uint16_t port,
    exports_heddle_overlay_backend_node_plan_t *node_plan
) {
    heddle_overlay_types_plan_t *plan = &node_plan->plan;
    memset(plan, 0, sizeof *plan);

    ALLOCATE_LIST(&plan->links, 1);
    heddle_overlay_types_link_t *link = plan->links.ptr;
    set(&link->name, DEVICE);
    link->mtu = node_plan->mtu;
    link->kind.tag = HEDDLE_OVERLAY_TYPES_LINK_KIND_TUN;
    heddle_overlay_types_tun_t *tun = &link->kind.val.tun;
    tun->port = port;
    ALLOCATE_LIST(&tun->local, lease->families.len);

    // No host on the overlay may configure routes on this node.
    ALLOCATE_LIST(&plan->sysctls, 1);
    heddle_overlay_types_sysctl_t *sysctl = plan->sysctls.ptr;
    set(&sysctl->link, DEVICE);
    sysctl->family = HEDDLE_OVERLAY_TYPES_IP_FAMILY_IPV6;
    set(&sysctl->name, "accept_ra");
    set(&sysctl->value, "0");

    ALLOCATE_LIST(&plan->addresses, lease->families.len);
    for (size_t i = 0; i < lease->families.len; i++) {
        const lease_family *part = &lease->families.ptr[i];
        tun->local.ptr[i] = local_address(underlay, &part->public_address);
        heddle_overlay_types_address_t *address = &plan->addresses.ptr[i];
        set(&address->link, DEVICE);
        address->network = (ip_network) { part->subnet.address, FAMILIES[part->subnet.address.tag].bits };
    }

    ALLOCATE_LIST(&plan->routes, config->networks.len);
    for (size_t i = 0; i < config->networks.len; i++) {
        heddle_overlay_types_route_t *route = &plan->routes.ptr[i];
        route->destination = config->networks.ptr[i].network;
        route->action.tag = HEDDLE_OVERLAY_TYPES_ROUTE_ACTION_FORWARD;
        set(&route->action.val.forward.link, DEVICE);
    }
}

bool exports_heddle_overlay_backend_plan_node(
    network_config *config,
    node *node,
    lease *lease,
    exports_heddle_overlay_backend_node_plan_t *node_plan,
    config_error *error
) {
    uint16_t port;
    bool done = port_of(config, &port, error) && mtu_of(config, &node->underlay, &node_plan->mtu, error);
    if (done) plan(config, &node->underlay, lease, port, node_plan);
    heddle_overlay_types_network_config_free(config);
    heddle_overlay_types_node_free(node);
    heddle_overlay_types_lease_free(lease);
    return done;
}

static bool is_text(const string *string, const char *text) {
    return string->len == strlen(text) && memcmp(string->ptr, text, string->len) == 0;
}

// Returns true if a peer publishes an address of this node.
static bool is_here(const node *node, const lease *own, const lease *peer) {
    for (size_t i = 0; i < peer->families.len; i++) {
        const ip_address *public = &peer->families.ptr[i].public_address;
        for (size_t j = 0; j < own->families.len; j++) {
            if (is_same(public, &own->families.ptr[j].public_address)) return true;
        }
        for (size_t j = 0; j < node->underlay.public_addresses.len; j++) {
            if (is_same(public, &node->underlay.public_addresses.ptr[j])) return true;
        }
    }
    return false;
}

bool exports_heddle_overlay_backend_plan_peer(
    network_config *config,
    node *node,
    lease *own,
    lease *peer,
    heddle_overlay_types_plan_t *plan,
    peer_error *error
) {
    bool done = false;
    const string *type = &peer->backend_type.val;
    if (peer->backend_type.is_some && !is_text(type, "udp")) {
        error->tag = EXPORTS_HEDDLE_OVERLAY_BACKEND_PEER_ERROR_OTHER_BACKEND;
        packet_backend_plugin_string_dup_n(&error->val.other_backend, (const char *)type->ptr, type->len);
    } else if (is_here(node, own, peer)) {
        error->tag = EXPORTS_HEDDLE_OVERLAY_BACKEND_PEER_ERROR_INVALID;
        set(&error->val.invalid, "its public address is this node's own: expected the address of another node");
    } else {
        // The node's route to the device covers every peer.
        memset(plan, 0, sizeof *plan);
        done = true;
    }
    heddle_overlay_types_network_config_free(config);
    heddle_overlay_types_node_free(node);
    heddle_overlay_types_lease_free(own);
    heddle_overlay_types_lease_free(peer);
    return done;
}
