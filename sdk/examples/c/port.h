// `Port` in the Backend object of the network config.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"

// Finds it in JSON text. It stays as it is where none is given; as in flannel, null and 0 are the same as none. False:
// something is wrong, and `key` and `message` say what.
bool read_port(const char *json, size_t length, uint16_t *port, const char **key, struct message *message);
