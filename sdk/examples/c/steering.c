// Selects the peer for a packet: the one with the longest prefix that contains its destination.
#include <string.h>

#include "interface.h"

struct subnet {
    uint8_t bytes[LONGEST];
    uint8_t length;
    uint32_t peer;
};

// The subnets of a family, ordered by `compare`, and the prefix lengths among them.
struct table {
    struct subnet *subnets;
    size_t count;
    bool has[LONGEST * 8 + 1];
};

// Tables for IPv4 and IPv6. Zeroed in a new instance, and replaced by each update.
static struct table tables[2];

static const uint8_t BITS[] = { [IPV4] = 32, [IPV6] = 128 };

static int compare(const void *left, const void *right) {
    const struct subnet *one = left, *other = right;
    if (one->length != other->length) return one->length - other->length;
    return memcmp(one->bytes, other->bytes, LONGEST);
}

// Returns the network of this prefix length that contains an address. The length is at most that of
// the address.
static struct subnet around(const ip_address *address, uint8_t length) {
    struct subnet subnet = { .length = length };
    to_bytes(address, subnet.bytes);
    if (length < LONGEST * 8) {
        subnet.bytes[length / 8] &= (uint8_t)(0xff00 >> (length % 8));
        memset(subnet.bytes + length / 8 + 1, 0, (size_t)(LONGEST - 1 - length / 8));
    }
    return subnet;
}

// A look-up costs a binary search per prefix length in the table. Overlays have one or two.
static const struct subnet *find(const ip_address *destination) {
    const struct table *table = &tables[destination->tag];
    for (int length = BITS[destination->tag]; length >= 0; length--) {
        if (!table->has[length]) continue;
        struct subnet wanted = around(destination, (uint8_t)length);
        const struct subnet *found = bsearch(&wanted, table->subnets, table->count, sizeof wanted, compare);
        if (found != NULL) return found;
    }
    return NULL;
}

void exports_heddle_overlay_steering_update(
    network_config *config,
    node *node,
    lease *own,
    exports_heddle_overlay_steering_list_lease_t *peers
) {
    // A lease has at most one subnet in a family.
    for (uint8_t family = IPV4; family <= IPV6; family++) {
        struct table *table = &tables[family];
        free(table->subnets);
        *table = (struct table) { .subnets = allocate(peers->len, sizeof *table->subnets) };
    }
    for (size_t peer = 0; peer < peers->len; peer++) {
        const lease *lease = &peers->ptr[peer];
        for (size_t i = 0; i < lease->families.len; i++) {
            const ip_network *subnet = &lease->families.ptr[i].subnet;
            struct table *table = &tables[subnet->address.tag];
            if (subnet->prefix_length > BITS[subnet->address.tag] || table->count == peers->len) continue;
            struct subnet *entry = &table->subnets[table->count++];
            *entry = around(&subnet->address, subnet->prefix_length);
            entry->peer = (uint32_t)peer;
            table->has[subnet->prefix_length] = true;
        }
    }
    for (uint8_t family = IPV4; family <= IPV6; family++) {
        qsort(tables[family].subnets, tables[family].count, sizeof *tables[family].subnets, compare);
    }
    heddle_overlay_types_network_config_free(config);
    heddle_overlay_types_node_free(node);
    heddle_overlay_types_lease_free(own);
    exports_heddle_overlay_steering_list_lease_free(peers);
}

void exports_heddle_overlay_steering_steer(
    exports_heddle_overlay_steering_list_ip_address_t *destinations,
    exports_heddle_overlay_steering_list_option_peer_index_t *peers
) {
    ALLOCATE_LIST(peers, destinations->len);
    for (size_t i = 0; i < destinations->len; i++) {
        const struct subnet *subnet = find(&destinations->ptr[i]);
        peers->ptr[i].is_some = subnet != NULL;
        if (subnet != NULL) peers->ptr[i].val = subnet->peer;
    }
    exports_heddle_overlay_steering_list_ip_address_free(destinations);
}
