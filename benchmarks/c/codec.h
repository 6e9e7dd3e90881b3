/* How one byte travels from one client to another in each server's protocol: our frames, NATS, MQTT, Redis, D-Bus.
 *
 * A message carries one data byte, as a frame does. Clients have numbers from 1 to 255; what a client sends to a
 * number reaches the client that opened with it. Generators are written once, against this. */
#ifndef CODEC_H
#define CODEC_H

#include "link.h"

enum { MESSAGE_MAX = 256, BROKEN = -1 };

struct codec {
    const char *name;
    /* Messages that may be under way at once. 0: the server holds a quick sender back itself, as ours does; the
     * others cut a slow receiver off or drop, so the flood holds itself back, far enough above what keeps the
     * server busy. */
    size_t window;
    /* Connects, takes the number, alone or shared with others that each get a copy, and returns once the server is known
     * to deliver to it. */
    struct link (*open)(const char *address, int number, int shared);
    /* Writes the message that client `from` sends to client `to`; returns its size. */
    size_t (*encode)(unsigned char *out, int to, unsigned char data);
    /* Writes what the server would deliver of it: what a generator feeds itself when it measures its own capacity. */
    size_t (*deliver)(unsigned char *out, int from, int to, unsigned char data);
    /* Takes the whole messages off the head of `in`: their data bytes go to `data`, their number to `count`.
     * Returns the bytes used, or BROKEN where something else than a message from `from` stands there. `data` has
     * room for `size / 2` bytes. */
    ssize_t (*decode)(const unsigned char *in, size_t size, int from, unsigned char *data, size_t *count);
};

extern const struct codec frames, nats, mqtt, redis, dbus;

/* By its name, or fails. */
const struct codec *codec_named(const char *name);

/* For `open`: sends the client one message of its own and waits until it is back, so that it is certain to be
 * registered. */
void codec_confirm(const struct codec *codec, struct link *link, int number);

#endif
