/* NATS's text protocol. Client 0x41 subscribes to b.41; one subscription each, so the subscription's number is
 * always 1. */
#include "codec.h"

#include <stdio.h>
#include <string.h>

enum { MESSAGE = 17 }; /* as delivered; the shortest line that could be taken for its beginning is a PING */

static const char DIGITS[] = "0123456789abcdef";

static size_t encode(unsigned char *out, int to, unsigned char data)
{
    memcpy(out, "PUB b.00 1\r\n?\r\n", 15);
    out[6] = (unsigned char)DIGITS[to >> 4];
    out[7] = (unsigned char)DIGITS[to & 15];
    out[12] = data;
    return 15;
}

static size_t deliver(unsigned char *out, int from, int to, unsigned char data)
{
    (void)from;
    memcpy(out, "MSG b.00 1 1\r\n?\r\n", 17);
    out[6] = (unsigned char)DIGITS[to >> 4];
    out[7] = (unsigned char)DIGITS[to & 15];
    out[14] = data;
    return MESSAGE;
}

static int is_message(const unsigned char *in)
{
    return memcmp(in, "MSG b.", 6) == 0 && memcmp(in + 8, " 1 1\r\n", 6) == 0 && memcmp(in + 15, "\r\n", 2) == 0;
}

static ssize_t decode(const unsigned char *in, size_t size, int from, unsigned char *data, size_t *count)
{
    const unsigned char *next = in, *end = in + size;
    (void)from;
    for (*count = 0; next < end;) {
        if (end - next >= MESSAGE && is_message(next)) {
            data[(*count)++] = next[14];
            next += MESSAGE;
        } else if (end - next >= 6 && memcmp(next, "PING\r\n", 6) == 0) {
            next += 6; /* the server is set to ask again only after an hour */
        } else if (*next == 'M' || *next == 'P') {
            if (end - next >= MESSAGE) return BROKEN;
            break;
        } else {
            return BROKEN;
        }
    }
    return next - in;
}

static struct link open_client(const char *address, int number, int shared)
{
    struct link link = link_connect(address, 0);
    char text[4096] = "";
    size_t have = 0;
    static const char START[] = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB b.%02x 1\r\nPING\r\n";
    int size = snprintf(text, sizeof text, START, number);
    link_write(&link, text, (size_t)size);
    text[0] = 0;
    while (!strstr(text, "PONG\r\n")) { /* INFO and its line come first */
        if (have == sizeof text - 1) fail("nats: too much at the start");
        have += link_read(&link, text + have, sizeof text - 1 - have);
        text[have] = 0;
    }
    if (!shared) codec_confirm(&nats, &link, number);
    return link;
}

const struct codec nats = {"nats", 1 << 19, open_client, encode, deliver, decode};
