/* D-Bus: method calls that want no reply, little-endian, one byte of body. Client 0x41 owns the name b.c41.
 *
 * A message is a fixed header of 12 bytes, the header fields as an array with its length before it, padding to 8,
 * then the body. All of ours have one shape, so each destination's is built once and copied. */
#include "codec.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CALL = 1, REPLY = 2, ERROR = 3, SIGNAL = 4, NO_REPLY = 1 };
enum { PATH = 1, INTERFACE = 2, MEMBER = 3, DESTINATION = 6, SENDER = 7, SIGNATURE = 8 };
enum { FIXED = 16 };

struct message {
    size_t size;
    unsigned char bytes[MESSAGE_MAX];
};

static size_t aligned(size_t size, size_t to) { return (size + to - 1) / to * to; }

static void put_u32(unsigned char *out, size_t value)
{
    uint32_t little = (uint32_t)value;
    memcpy(out, &little, 4);
}

static size_t get_u32(const unsigned char *in)
{
    uint32_t little;
    memcpy(&little, in, 4);
    return little;
}

/* One header field: its code, the signature of its value, the value. Strings have a length of four bytes,
 * signatures one of one byte. */
static void put_field(struct message *message, int code, char type, const char *text)
{
    size_t length = strlen(text), at = aligned(message->size, 8);
    unsigned char *out = message->bytes + at;
    out[0] = (unsigned char)code;
    out[1] = 1;
    out[2] = (unsigned char)type;
    size_t head = 4;
    if (type == 'g') out[head++] = (unsigned char)length;
    else put_u32(out + head, length), head += 4;
    memcpy(out + head, text, length + 1);
    message->size = at + head + length + 1;
}

static struct message start_message(int type, int flags, int serial)
{
    struct message message = {.size = FIXED, .bytes = {'l', (unsigned char)type, (unsigned char)flags, 1}};
    put_u32(message.bytes + 8, (size_t)serial);
    return message;
}

static void end_fields(struct message *message, size_t body)
{
    put_u32(message->bytes + 12, message->size - FIXED);
    put_u32(message->bytes + 4, body);
    message->size = aligned(message->size, 8) + body;
}

static void build(struct message *message, const char *sender, int to)
{
    char name[8];
    snprintf(name, sizeof name, "b.c%02x", to);
    *message = start_message(CALL, NO_REPLY, 1);
    put_field(message, PATH, 'o', "/");
    put_field(message, MEMBER, 's', "F");
    put_field(message, DESTINATION, 's', name);
    put_field(message, SIGNATURE, 'g', "y");
    if (sender) put_field(message, SENDER, 's', sender);
    end_fields(message, 1);
}

static size_t copy(unsigned char *out, struct message *message, const char *sender, int to, unsigned char data)
{
    if (!message->size) build(message, sender, to);
    memcpy(out, message->bytes, message->size);
    out[message->size - 1] = data;
    return message->size;
}

static size_t encode(unsigned char *out, int to, unsigned char data)
{
    static struct message calls[256];
    return copy(out, &calls[to], NULL, to, data);
}

static size_t deliver(unsigned char *out, int from, int to, unsigned char data)
{
    static struct message delivered[256];
    (void)from;
    return copy(out, &delivered[to], ":1.1", to, data);
}

static ssize_t decode(const unsigned char *in, size_t size, int from, unsigned char *data, size_t *count)
{
    const unsigned char *next = in, *end = in + size;
    (void)from;
    for (*count = 0; end - next >= FIXED;) {
        size_t body = get_u32(next + 4), whole = FIXED + aligned(get_u32(next + 12), 8) + body;
        if (next[0] != 'l' || next[1] == ERROR || whole > 4096) return BROKEN;
        if ((size_t)(end - next) < whole) break;
        if (next[1] == CALL) { /* signals and replies are the bus's own talk */
            if (body != 1) return BROKEN;
            data[(*count)++] = next[whole - 1];
        }
        next += whole;
    }
    return next - in;
}

static void call_bus(struct link *link, int serial, const char *member, const char *name)
{
    struct message message = start_message(CALL, 0, serial);
    size_t length = name ? strlen(name) : 0, body = name ? 4 + length + 1 : 0;
    put_field(&message, PATH, 'o', "/org/freedesktop/DBus");
    put_field(&message, INTERFACE, 's', "org.freedesktop.DBus");
    put_field(&message, MEMBER, 's', member);
    put_field(&message, DESTINATION, 's', "org.freedesktop.DBus");
    if (name) {
        /* RequestName takes the name and a word of flags. */
        put_field(&message, SIGNATURE, 'g', "su");
        body = aligned(body, 4) + 4;
    }
    end_fields(&message, body);
    if (name) {
        unsigned char *out = message.bytes + message.size - body;
        put_u32(out, length);
        memcpy(out + 4, name, length + 1);
    }
    link_write(link, message.bytes, message.size);
}

static struct link open_client(const char *address, int number, int shared)
{
    struct link link = link_connect(address, 0);
    char text[128], uid[16], name[8], hex[33] = "";
    snprintf(uid, sizeof uid, "%u", (unsigned)getuid());
    for (size_t i = 0; uid[i]; i++) snprintf(hex + 2 * i, 3, "%02x", uid[i]);
    int size = snprintf(text, sizeof text, "%cAUTH EXTERNAL %s\r\n", 0, hex);
    link_write(&link, text, (size_t)size);
    size_t have = link_read(&link, text, sizeof text - 1);
    if (have < 2 || memcmp(text, "OK", 2) != 0) fail("dbus: authentication refused");
    link_write(&link, "BEGIN\r\n", 7);
    snprintf(name, sizeof name, "b.c%02x", number);
    call_bus(&link, 1, "Hello", NULL);
    call_bus(&link, 2, "RequestName", name);
    if (!shared) codec_confirm(&dbus, &link, number);
    return link;
}

const struct codec dbus = {"dbus", 1 << 14, open_client, encode, deliver, decode};
