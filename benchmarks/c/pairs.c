/* pairs CODEC ADDRESS SECONDS CLIENTS [MESSAGES]: clients in pairs, each of which answers what it gets with one
 * message.
 *
 * One message is under way in each pair; its data byte counts up at each hop, so a lost, doubled or foreign one
 * fails. After a short warm-up the messages received in SECONDS are counted, or, with MESSAGES, the loop ends after
 * that many and SECONDS is only the limit. At the end each pair's last message must have arrived. ADDRESS `direct`
 * leaves the server out: a socket pair for each pair.
 */
#define _GNU_SOURCE
#include "codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { CLIENTS_MAX = 254, BATCH = 64, PATIENCE_MS = 10000 };
static const unsigned long long UNTIL_TIME = -1ull; /* no number of messages ends the loop */
static const double WARM_UP = 0.2; /* seconds: the first wake-ups are slower than those after them */

struct client {
    struct link link;
    int number, partner;
    unsigned char expected; /* the next data byte for this client */
    size_t have;
    unsigned char in[4 * MESSAGE_MAX];
};

static const struct codec *codec;
static struct client clients[CLIENTS_MAX];
static int is_direct, is_ending;
static unsigned long long received, under_way;

/* From 1 on, without the one id that no bound path has. */
static int number_of(int index) { return index + 1 < '/' ? index + 1 : index + 2; }

static void send_from(struct client *client, unsigned char data)
{
    unsigned char message[MESSAGE_MAX];
    size_t size = is_direct ? codec->deliver(message, client->number, client->partner, data)
                            : codec->encode(message, client->partner, data);
    link_write(&client->link, message, size);
    under_way++;
}

static void take(struct client *client)
{
    unsigned char data[2 * MESSAGE_MAX];
    size_t count;
    client->have += link_read(&client->link, client->in + client->have, sizeof client->in - client->have);
    ssize_t used = codec->decode(client->in, client->have, client->partner, data, &count);
    if (used < 0) fail("client %d got what its partner did not send", client->number);
    memmove(client->in, client->in + used, client->have -= (size_t)used);
    if (!count) return;
    if (count > 1 || data[0] != client->expected) fail("client %d got another message than was sent", client->number);
    received++;
    under_way--;
    client->expected = (unsigned char)(data[0] + 2);
    if (!is_ending) send_from(client, (unsigned char)(data[0] + 1));
}

/* Until `until` on the clock or `messages` in all; while ending, until nothing is under way. */
static void run(int poll, double until, unsigned long long messages)
{
    while (is_ending ? under_way > 0 : now() < until && received < messages) {
        struct epoll_event events[BATCH];
        int ready = epoll_wait(poll, events, BATCH, PATIENCE_MS);
        if (ready == 0) fail("%llu messages are missing", under_way);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            do take(client);
            while (link_has_more(&client->link));
        }
    }
}

static void connect_all(const char *address, int count, int poll)
{
    for (int i = 0; i < count; i++) {
        struct client *client = &clients[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
        client->number = number_of(i);
        client->partner = number_of(i ^ 1);
        client->expected = (unsigned char)(i & 1 ? i - 1 : i + 1);
        if (!is_direct) client->link = codec->open(address, client->number, 0);
        else if (i % 2 == 0) {
            struct link ends[2];
            link_pair(ends);
            client[0].link = ends[0];
            client[1].link = ends[1];
        }
        epoll_ctl(poll, EPOLL_CTL_ADD, client->link.fd, &event);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5 && argc != 6) fail("usage: pairs CODEC ADDRESS SECONDS CLIENTS [MESSAGES]");
    int poll = epoll_create1(EPOLL_CLOEXEC), count = atoi(argv[4]);
    unsigned long long messages = argc == 6 ? strtoull(argv[5], NULL, 10) : UNTIL_TIME;
    if (count < 2 || count > CLIENTS_MAX || count % 2) fail("an even number of clients, at most %d", CLIENTS_MAX);
    codec = codec_named(argv[1]);
    is_direct = strcmp(argv[2], "direct") == 0;
    connect_all(argv[2], count, poll);
    for (int i = 0; i < count; i += 2) send_from(&clients[i], (unsigned char)i);
    if (messages == UNTIL_TIME) run(poll, now() + WARM_UP, messages);
    unsigned long long before = received;
    double start = now();
    run(poll, start + atof(argv[3]), messages);
    unsigned long long counted = received - before;
    double seconds = now() - start;
    if (messages != UNTIL_TIME && received < messages) fail("only %llu messages in %s s", received, argv[3]);
    is_ending = 1;
    run(poll, 0, 0);
    printf("{\"rate\": %.0f, \"messages\": %llu}\n", (double)counted / seconds, counted);
    return 0;
}
