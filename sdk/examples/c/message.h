// Messages for people, built without the standard library's formatting, which is larger than this
// plugin.
#pragma once

#include <stddef.h>
#include <stdint.h>

// A piece that does not fit is left out.
struct message {
    char bytes[256];
    size_t length;
};

void add_bytes(struct message *message, const void *bytes, size_t length);
void add_text(struct message *message, const char *text);
void add_number(struct message *message, uint32_t number);
