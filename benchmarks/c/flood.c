/* flood CODEC ADDRESS SECONDS RECEIVERS [shared]: one client sends to RECEIVERS others, 32,768 messages a write, to
 * random ones of them, or each message to all of them, which share a number then. A message to all counts for each.
 *
 * A child process writes one block over and over, for a moment to warm up, then, when all that has arrived, for
 * SECONDS, and says how many; this process reads until it has them all. Every data byte is compared with what was
 * sent to that receiver, so a lost, doubled or misplaced message fails. The clock runs from the first write after
 * the warm-up to the last byte received. ADDRESS `direct` leaves the server out: each receiver is fed by a socket
 * pair with what a server would deliver, which shows what this program can do at most.
 */
#define _GNU_SOURCE
#include "codec.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { BLOCK = 32768, RECEIVERS_MAX = 32, READ = 1 << 18, SENDER = 'A', FIRST_RECEIVER = 'B', PATIENCE_MS = 10000 };

struct receiver {
    struct link link, feed; /* feed: the sender's end, when there is no server between */
    unsigned char pattern[2 * BLOCK]; /* one block's data bytes for it, twice, so that comparing seldom wraps */
    size_t period;
    unsigned char *block; /* its own part of a block, for `feed` */
    size_t block_size;
    unsigned char in[READ + MESSAGE_MAX];
    size_t have;
    unsigned long long received;
};

static const double WARM_UP = 0.2; /* seconds: modules are imported, buffers and windows grow */

struct shared {
    _Atomic unsigned long long sent, received;
    _Atomic int done;
    unsigned long long before; /* messages of the warm-up */
    double started;
};

static const struct codec *codec;
static struct receiver *receivers;
static int receiver_count, is_direct, is_shared;
static struct shared *shared;
static unsigned char *block; /* what the sender writes: BLOCK messages */
static size_t block_size;
static unsigned char data[READ];

static uint32_t random_number(void) { /* xorshift: the same numbers in every run */
    static uint32_t state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static void make_blocks(void)
{
    block = malloc((size_t)BLOCK * MESSAGE_MAX);
    if (is_direct)
        for (int i = 0; i < receiver_count; i++) receivers[i].block = malloc((size_t)BLOCK * MESSAGE_MAX);
    for (int i = 0; i < BLOCK; i++) {
        unsigned char byte = (unsigned char)random_number();
        int which = (int)(random_number() >> 8) % receiver_count;
        int number = is_shared ? FIRST_RECEIVER : FIRST_RECEIVER + which;
        block_size += codec->encode(block + block_size, number, byte);
        for (int j = is_shared ? 0 : which; j < (is_shared ? receiver_count : which + 1); j++) {
            struct receiver *to = &receivers[j];
            to->pattern[to->period++] = byte;
            if (is_direct) to->block_size += codec->deliver(to->block + to->block_size, SENDER, number, byte);
        }
    }
    for (int i = 0; i < receiver_count; i++) {
        struct receiver *to = &receivers[i];
        memcpy(to->pattern + to->period, to->pattern, to->period);
    }
}

static void write_block(struct link *sender)
{
    if (!is_direct) {
        link_write(sender, block, block_size);
        return;
    }
    for (int i = 0; i < receiver_count; i++) {
        struct receiver *to = &receivers[i];
        link_write(&to->feed, to->block, to->block_size);
    }
}

static void send_for(struct link *sender, double seconds)
{
    for (double end = now() + seconds; now() < end;) {
        if (codec->window && !is_direct && shared->sent - shared->received > codec->window) {
            usleep(100);
            continue;
        }
        write_block(sender);
        shared->sent += (unsigned long long)BLOCK * (is_shared ? receiver_count : 1);
    }
}

static void send_all(struct link *sender, double seconds)
{
    send_for(sender, WARM_UP);
    while (shared->received < shared->sent) usleep(100);
    shared->before = shared->sent;
    shared->started = now();
    send_for(sender, seconds);
    shared->done = 1;
}

/* Compares `count` data bytes with what should come next at this receiver. */
static int is_expected(const struct receiver *receiver, size_t count)
{
    size_t at = receiver->received % receiver->period;
    for (const unsigned char *next = data; count;) {
        size_t here = 2 * receiver->period - at < count ? 2 * receiver->period - at : count;
        if (memcmp(next, receiver->pattern + at, here) != 0) return 0;
        next += here;
        count -= here;
        at = (at + here) % receiver->period;
    }
    return 1;
}

static void take(struct receiver *receiver)
{
    size_t count;
    receiver->have += link_read(&receiver->link, receiver->in + receiver->have, sizeof receiver->in - receiver->have);
    ssize_t used = codec->decode(receiver->in, receiver->have, SENDER, data, &count);
    if (used < 0) fail("not a message from the sender after %llu", receiver->received);
    if (!is_expected(receiver, count)) fail("wrong data after %llu messages", receiver->received);
    if ((size_t)used < receiver->have) memmove(receiver->in, receiver->in + used, receiver->have - (size_t)used);
    receiver->have -= (size_t)used;
    receiver->received += count;
    shared->received += count;
}

static void receive_all(void)
{
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < receiver_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &receivers[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, receivers[i].link.fd, &event);
    }
    for (int silent = 0; !shared->done || shared->received < shared->sent;) {
        struct epoll_event events[RECEIVERS_MAX];
        int ready = epoll_wait(poll, events, RECEIVERS_MAX, 100);
        silent = ready ? 0 : silent + 100;
        if (silent >= PATIENCE_MS) fail("only %llu of %llu messages arrived", shared->received, shared->sent);
        for (int i = 0; i < ready; i++) {
            struct receiver *receiver = events[i].data.ptr;
            do take(receiver);
            while (link_has_more(&receiver->link));
        }
    }
}

/* Each receiver must have its own share, to the message. */
static void check_shares(void)
{
    unsigned long long blocks = shared->sent / BLOCK / (is_shared ? (unsigned)receiver_count : 1);
    for (int i = 0; i < receiver_count; i++) {
        struct receiver *receiver = &receivers[i];
        if (receiver->received != blocks * receiver->period || receiver->have) fail("receiver %d lacks some", i);
    }
}

int main(int argc, char **argv)
{
    is_shared = argc == 6 && strcmp(argv[5], "shared") == 0;
    if (argc != 5 + is_shared) fail("usage: flood CODEC ADDRESS SECONDS RECEIVERS [shared]");
    codec = codec_named(argv[1]);
    is_direct = strcmp(argv[2], "direct") == 0;
    receiver_count = atoi(argv[4]);
    if (receiver_count < 1 || receiver_count > RECEIVERS_MAX) fail("1 to %d receivers", RECEIVERS_MAX);
    receivers = calloc((size_t)receiver_count, sizeof *receivers);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    make_blocks();
    struct link sender = {.fd = -1};
    for (int i = 0; i < receiver_count; i++) {
        struct link ends[2];
        if (is_direct) link_pair(ends), receivers[i].feed = ends[0], receivers[i].link = ends[1];
        else receivers[i].link = codec->open(argv[2], FIRST_RECEIVER + (is_shared ? 0 : i), is_shared);
    }
    if (!is_direct) sender = codec->open(argv[2], SENDER, 0);
    pid_t child = fork();
    if (child < 0) fail("fork: %s", strerror(errno));
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        send_all(&sender, atof(argv[3]));
        pause(); /* the connection stays until everything has arrived */
    }
    receive_all();
    double seconds = now() - shared->started;
    kill(child, SIGKILL);
    check_shares();
    double rate = (double)(shared->received - shared->before) / seconds;
    printf("{\"rate\": %.0f, \"messages\": %llu}\n", rate, shared->received);
    return 0;
}
