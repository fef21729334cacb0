// A minimal JSON parser for one number. The host has checked that the text is JSON, but nothing
// here relies on that. There is no recursion, and no byte outside of `at` and `end` is accessed.
#include "port.h"

#include <string.h>

// Length of a value in messages, in bytes.
enum { SHOWN = 60 };

struct reader {
    const char *at;
    const char *end;
};

struct text {
    const char *bytes;
    size_t length;
};

// Returns the next byte that is not white space; 0 at the end.
static char peek(struct reader *reader) {
    while (reader->at < reader->end && memchr(" \t\r\n", *reader->at, 4) != NULL) reader->at++;
    return reader->at < reader->end ? *reader->at : 0;
}

// Skips this byte, if it is the next.
static bool accept(struct reader *reader, char wanted) {
    if (peek(reader) != wanted) return false;
    reader->at++;
    return true;
}

// Skips a string, starting at its opening quotation mark.
static bool skip_string(struct reader *reader) {
    while (++reader->at < reader->end) {
        if (*reader->at == '"') {
            reader->at++;
            return true;
        }
        if (*reader->at == '\\' && ++reader->at == reader->end) break;
    }
    return false;
}

// Skips a number, true, false or null.
static void skip_word(struct reader *reader) {
    while (reader->at < reader->end && memchr(" \t\r\n,:\"[]{}", *reader->at, 11) == NULL) reader->at++;
}

// Skips a value, whatever it contains.
static bool skip_value(struct reader *reader) {
    size_t depth = 0;
    do {
        switch (peek(reader)) {
        case 0:
            return false;
        case '"':
            if (!skip_string(reader)) return false;
            break;
        case '[':
        case '{':
            depth++;
            reader->at++;
            break;
        case ']':
        case '}':
            if (depth == 0) return false;
            depth--;
            reader->at++;
            break;
        case ',':
        case ':':
            if (depth == 0) return false;
            reader->at++;
            break;
        default:
            skip_word(reader);
        }
    } while (depth > 0);
    return true;
}

// Case-insensitive, like Go's matching of keys, which flannel's users rely on. A key with escapes
// never matches.
static bool is_port(struct text key) {
    const char *wanted = "port";
    if (key.length != strlen(wanted)) return false;
    for (size_t i = 0; i < key.length; i++) {
        if ((key.bytes[i] | 0x20) != wanted[i]) return false;
    }
    return true;
}

static bool is(struct text value, const char *word) {
    return value.length == strlen(word) && memcmp(value.bytes, word, value.length) == 0;
}

// Parses a whole number up to 65535.
static bool read_number(struct text value, uint32_t *number) {
    if (value.length == 0 || value.length > 5) return false;
    *number = 0;
    for (size_t i = 0; i < value.length; i++) {
        if (value.bytes[i] < '0' || value.bytes[i] > '9') return false;
        *number = *number * 10 + (uint32_t)(value.bytes[i] - '0');
    }
    return *number <= UINT16_MAX;
}

// Finds the members called `Port`: their number, and the value of the last one.
static bool find_port(struct reader *reader, size_t *found, struct text *value) {
    *found = 0;
    if (!accept(reader, '{')) return false;
    if (!accept(reader, '}')) {
        do {
            if (peek(reader) != '"') return false;
            struct text key = { reader->at + 1, 0 };
            if (!skip_string(reader)) return false;
            key.length = (size_t)(reader->at - key.bytes) - 1;
            if (!accept(reader, ':')) return false;
            peek(reader);
            const char *start = reader->at;
            if (!skip_value(reader)) return false;
            if (is_port(key)) {
                ++*found;
                *value = (struct text) { start, (size_t)(reader->at - start) };
            }
        } while (accept(reader, ','));
        if (!accept(reader, '}')) return false;
    }
    peek(reader);
    return reader->at == reader->end;
}

bool read_port(const char *json, size_t length, uint16_t *port, const char **key, struct message *message) {
    struct reader reader = { json, json + length };
    struct text value;
    size_t found;
    if (!find_port(&reader, &found, &value)) {
        *key = "Backend";
        add_text(message, "is not a JSON object");
        return false;
    }
    *key = "Backend.Port";
    if (found > 1) {
        add_text(message, "is given more than once (case does not matter)");
        return false;
    }
    if (found == 0 || is(value, "null")) return true;
    uint32_t number;
    if (read_number(value, &number)) {
        if (number != 0) *port = (uint16_t)number;
        return true;
    }
    size_t shown = value.length;
    if (shown > SHOWN) {
        shown = SHOWN;
        // Do not cut in the middle of a character.
        while (shown > 0 && (value.bytes[shown] & 0xc0) == 0x80) shown--;
    }
    add_text(message, "is ");
    add_bytes(message, value.bytes, shown);
    add_text(message, shown < value.length ? "…: expected " : ": expected ");
    add_text(message, "a whole number from 0 to 65535");
    return false;
}
