// `Port` in the Backend object of the network config.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"

// Reads the port from JSON text. Leaves it unchanged if there is none; as in flannel, null and 0
// count as none. Returns false on an error, which `key` and `message` then describe.
bool read_port(const char *json, size_t length, uint16_t *port, const char **key, struct message *message);
