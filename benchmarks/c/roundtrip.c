/* roundtrip CODEC ADDRESS SECONDS: the time of a message from A to B and of B's answer to A, over the server each
 * way.
 *
 * Both clients live in this process, one after the other, so that a round trip is two hops and nothing else. Prints
 * the median, the 99th percentile and the number of round trips. ADDRESS `direct` leaves the server out: one socket
 * pair.
 */
#include "codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 1 << 20, A = 'A', B = 'B' };
static const double WARM_UP = 0.2; /* seconds: the first round trips are slower than those after them */

static const struct codec *codec;
static int is_direct;
static float samples[SAMPLES];

static void hop(struct link *from, int sender, struct link *to, int receiver, unsigned char data)
{
    unsigned char message[MESSAGE_MAX], in[4 * MESSAGE_MAX], out[2 * MESSAGE_MAX];
    size_t size = is_direct ? codec->deliver(message, sender, receiver, data) : codec->encode(message, receiver, data);
    size_t have = 0, count = 0;
    link_write(from, message, size);
    while (!count) {
        have += link_read(to, in + have, sizeof in - have);
        ssize_t used = codec->decode(in, have, sender, out, &count);
        if (used < 0) fail("not a message from %c", sender);
        memmove(in, in + used, have -= (size_t)used);
    }
    if (count != 1 || have || out[0] != data) fail("another message than the one that was sent");
}

static int by_size(const void *left, const void *right)
{
    float difference = *(const float *)left - *(const float *)right;
    return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
    if (argc != 4) fail("usage: roundtrip CODEC ADDRESS SECONDS");
    struct link ends[2];
    codec = codec_named(argv[1]);
    is_direct = strcmp(argv[2], "direct") == 0;
    if (is_direct) link_pair(ends);
    else ends[1] = codec->open(argv[2], B, 0), ends[0] = codec->open(argv[2], A, 0);
    double begin = now(), end = begin + WARM_UP + atof(argv[3]);
    size_t taken = 0;
    for (unsigned char data = 0; taken < SAMPLES; data++) {
        double before = now();
        if (before > end) break;
        hop(&ends[0], A, &ends[1], B, data);
        hop(&ends[1], B, &ends[0], A, (unsigned char)~data);
        if (before - begin > WARM_UP) samples[taken++] = (float)((now() - before) * 1e6);
    }
    if (!taken) fail("no round trip in %s s", argv[3]);
    qsort(samples, taken, sizeof *samples, by_size);
    float median = samples[taken / 2], p99 = samples[taken * 99 / 100];
    printf("{\"median_us\": %.2f, \"p99_us\": %.2f, \"messages\": %zu}\n", median, p99, taken);
    return 0;
}
