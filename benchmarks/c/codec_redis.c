/* Redis's publish and subscribe, RESP3, so that one connection may do both. Client 0x41 subscribes to the channel
 * b.41. Replies to PUBLISH are turned off: the server would write them to the sender one by one, and no program reads them. */
#include "codec.h"

#include <stdio.h>
#include <string.h>

static const char DIGITS[] = "0123456789abcdef";
static const char PUBLISH[] = "*3\r\n$7\r\nPUBLISH\r\n$4\r\nb.00\r\n$1\r\n?\r\n";
static const char MESSAGE[] = ">3\r\n$7\r\nmessage\r\n$4\r\nb.00\r\n$1\r\n?\r\n";
enum { SIZE = sizeof PUBLISH - 1, CHANNEL = 23, DATA = 31 };

static size_t fill(unsigned char *out, const char *template, int to, unsigned char data)
{
    memcpy(out, template, SIZE);
    out[CHANNEL] = (unsigned char)DIGITS[to >> 4];
    out[CHANNEL + 1] = (unsigned char)DIGITS[to & 15];
    out[DATA] = data;
    return SIZE;
}

static size_t encode(unsigned char *out, int to, unsigned char data) { return fill(out, PUBLISH, to, data); }

static size_t deliver(unsigned char *out, int from, int to, unsigned char data)
{
    (void)from;
    return fill(out, MESSAGE, to, data);
}

static ssize_t decode(const unsigned char *in, size_t size, int from, unsigned char *data, size_t *count)
{
    (void)from;
    *count = size / SIZE;
    for (size_t i = 0; i < *count; i++) {
        const unsigned char *message = in + i * SIZE;
        if (memcmp(message, MESSAGE, CHANNEL) != 0 || memcmp(message + DATA + 1, "\r\n", 2) != 0) return BROKEN;
        data[i] = message[DATA];
    }
    return (ssize_t)(*count * SIZE);
}

/* Sends a command and reads until its answer, whose last line is known, is whole. */
static void ask(struct link *link, const char *command, const char *ending)
{
    char text[4096];
    size_t have = 0, tail = strlen(ending);
    link_write(link, command, strlen(command));
    do {
        if (have == sizeof text) fail("redis: too much at the start");
        have += link_read(link, text + have, sizeof text - have);
        if (text[0] == '-') fail("redis: %.*s", (int)(have < 80 ? have : 80), text);
    } while (have < tail || memcmp(text + have - tail, ending, tail) != 0);
}

static struct link open_client(const char *address, int number, int shared)
{
    struct link link = link_connect(address, 0);
    char subscribe[32];
    snprintf(subscribe, sizeof subscribe, "SUBSCRIBE b.%02x\r\n", number);
    ask(&link, "HELLO 3\r\n", "modules\r\n*0\r\n");
    ask(&link, subscribe, ":1\r\n");
    link_write(&link, "CLIENT REPLY OFF\r\n", 18);
    if (!shared) codec_confirm(&redis, &link, number);
    return link;
}

const struct codec redis = {"redis", 1 << 17, open_client, encode, deliver, decode};
