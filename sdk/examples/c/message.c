#include "message.h"

#include <string.h>

void add_bytes(struct message *message, const void *bytes, size_t length) {
    if (length > sizeof message->bytes - message->length) return;
    memcpy(message->bytes + message->length, bytes, length);
    message->length += length;
}

void add_text(struct message *message, const char *text) {
    add_bytes(message, text, strlen(text));
}

void add_number(struct message *message, uint32_t number) {
    if (number >= 10) add_number(message, number / 10);
    add_bytes(message, &"0123456789"[number % 10], 1);
}
