// Additions to the generated bindings: short names for the types of `wit/v0.1/types.wit`, memory
// for a function's results, and addresses as bytes.
#pragma once

#include <stdlib.h>

#include "packet_backend_plugin.h"

typedef packet_backend_plugin_string_t string;
typedef heddle_overlay_types_ip_address_t ip_address;
typedef heddle_overlay_types_ip_network_t ip_network;
typedef heddle_overlay_types_network_config_t network_config;
typedef heddle_overlay_types_underlay_t underlay;
typedef heddle_overlay_types_node_t node;
typedef heddle_overlay_types_lease_t lease;
typedef heddle_overlay_types_lease_family_t lease_family;
typedef heddle_overlay_types_config_error_t config_error;
typedef exports_heddle_overlay_backend_peer_error_t peer_error;

enum { IPV4 = HEDDLE_OVERLAY_TYPES_IP_ADDRESS_IPV4, IPV6 = HEDDLE_OVERLAY_TYPES_IP_ADDRESS_IPV6 };

// Length of an IPv6 address, in bytes.
enum { LONGEST = 16 };

// Returns zeroed memory for `count` objects. Running out of memory is a trap, like anything
// unexpected in a plugin: it fails the call, and the host reports it.
static inline void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL && count > 0) __builtin_trap();
    return memory;
}

// Gives a list `count` elements, all zero. The bindings free it once the host has read it.
#define ALLOCATE_LIST(list, count) ((list)->len = (count), (list)->ptr = allocate((list)->len, sizeof *(list)->ptr))

// Writes an address in network byte order. An IPv4 address takes the first four bytes; the others
// are 0.
static inline void to_bytes(const ip_address *address, uint8_t bytes[LONGEST]) {
    for (int i = 0; i < LONGEST; i++) bytes[i] = 0;
    if (address->tag == IPV4) {
        heddle_overlay_types_ipv4_address_t v4 = address->val.ipv4;
        bytes[0] = v4.f0, bytes[1] = v4.f1, bytes[2] = v4.f2, bytes[3] = v4.f3;
        return;
    }
    heddle_overlay_types_ipv6_address_t v6 = address->val.ipv6;
    const uint16_t groups[] = { v6.f0, v6.f1, v6.f2, v6.f3, v6.f4, v6.f5, v6.f6, v6.f7 };
    for (int i = 0; i < LONGEST / 2; i++) {
        bytes[2 * i] = (uint8_t)(groups[i] >> 8);
        bytes[2 * i + 1] = (uint8_t)groups[i];
    }
}
