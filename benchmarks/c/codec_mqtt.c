/* MQTT 3.1.1, QoS 0. Client 0x41 subscribes to the topic b/41, so that every packet has one size. */
#include "codec.h"

#include <stdio.h>
#include <string.h>

enum { SIZE = 9 }; /* PUBLISH, remaining length, length of the topic in two bytes, the topic, the data byte */

static const char DIGITS[] = "0123456789abcdef";

static size_t encode(unsigned char *out, int to, unsigned char data)
{
    memcpy(out, "\x30\x07\x00\x04" "b/00", 8);
    out[6] = (unsigned char)DIGITS[to >> 4];
    out[7] = (unsigned char)DIGITS[to & 15];
    out[8] = data;
    return SIZE;
}

static size_t deliver(unsigned char *out, int from, int to, unsigned char data)
{
    (void)from;
    return encode(out, to, data);
}

static ssize_t decode(const unsigned char *in, size_t size, int from, unsigned char *data, size_t *count)
{
    (void)from;
    *count = size / SIZE;
    for (size_t i = 0; i < *count; i++) {
        if (memcmp(in + i * SIZE, "\x30\x07\x00\x04" "b/", 6) != 0) return BROKEN;
        data[i] = in[i * SIZE + 8];
    }
    return (ssize_t)(*count * SIZE);
}

static struct link open_client(const char *address, int number, int shared)
{
    struct link link = link_connect(address, 0);
    unsigned char packet[32], answer[5];
    /* A clean session without keepalive; the client's name is its number in hex. */
    memcpy(packet, "\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03", 14);
    static int others = 0x80; /* clients that share a number still have names of their own */
    snprintf((char *)packet + 14, 4, "c%02x", shared ? others++ : number);
    link_write(&link, packet, 17);
    link_read_exactly(&link, answer, 4);
    if (memcmp(answer, "\x20\x02\x00\x00", 4) != 0) fail("mqtt: the server refused the connection");
    memcpy(packet, "\x82\x09\x00\x01\x00\x04", 6);
    snprintf((char *)packet + 6, 5, "b/%02x", number);
    packet[10] = 0;
    link_write(&link, packet, 11);
    link_read_exactly(&link, answer, 5);
    if (memcmp(answer, "\x90\x03\x00\x01\x00", 5) != 0) fail("mqtt: the server refused the subscription");
    if (!shared) codec_confirm(&mqtt, &link, number);
    return link;
}

const struct codec mqtt = {"mqtt", 1 << 17, open_client, encode, deliver, decode};
