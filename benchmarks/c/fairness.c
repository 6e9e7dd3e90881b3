/* fairness ADDRESS SECONDS SENDERS: many clients flood one, all as fast as the relay reads them. Our frames only.
 *
 * A child process keeps every sender's socket full; this process counts what comes from each. Jain's index over
 * what each sender got through in SECONDS after a warm-up: (sum x)^2 / (n * sum x^2), 1 where all got the same, 1/n
 * where one got everything. At the end the senders say how many frames each has written, and exactly those must
 * have arrived. ADDRESS `direct` leaves the relay out: the child feeds one socket pair, each sender's frames in
 * turn.
 */
#define _GNU_SOURCE
#include "codec.h"

#include <errno.h>
#include <poll.h>
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

enum { SENDERS_MAX = 128, WRITE = 65536, READ = 1 << 18, RECEIVER = 250, PATIENCE_MS = 10000 };
static const double WARM_UP = 0.2; /* seconds, in which buffers fill */

struct shared {
    uint64_t bytes[SENDERS_MAX];
    _Atomic int stop, done;
};

static struct link senders[SENDERS_MAX], receiver;
static unsigned char blocks[SENDERS_MAX][WRITE];
static int count, is_direct;
static struct shared *shared;
/* Frames by their two bytes as they stand in memory. Four tables in turn: in a run of equal frames each increment
 * of one counter would wait for the one before it. */
enum { TABLES = 4 };
static uint64_t seen[TABLES][65536];

static int number_of(int index) { return index + 1 < '/' ? index + 1 : index + 2; }
static unsigned char data_of(int index) { return (unsigned char)(0x5a ^ number_of(index)); }

static uint64_t seen_from(int index)
{
    unsigned char frame[2] = {(unsigned char)number_of(index), data_of(index)};
    uint16_t key;
    memcpy(&key, frame, 2);
    return seen[0][key] + seen[1][key] + seen[2][key] + seen[3][key];
}

static void push(int index)
{
    size_t at = shared->bytes[index] % WRITE;
    shared->bytes[index] += link_write_some(&senders[index], blocks[index] + at, WRITE - at);
}

static void send_all(void)
{
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLOUT, .data.u32 = (uint32_t)i};
        link_set_nonblocking(&senders[i]);
        epoll_ctl(poll, EPOLL_CTL_ADD, senders[i].fd, &event);
    }
    while (!shared->stop) {
        struct epoll_event events[SENDERS_MAX];
        int ready = epoll_wait(poll, events, SENDERS_MAX, 100);
        for (int i = 0; i < ready; i++) push((int)events[i].data.u32);
    }
    for (int i = 0; i < count; i++) /* a frame that was cut in two is completed */
        while (shared->bytes[i] % 2) push(i);
    shared->done = 1;
}

static void send_directly(struct link *feed)
{
    while (!shared->stop)
        for (int i = 0; i < count; i++) {
            link_write(feed, blocks[i], WRITE);
            shared->bytes[i] += WRITE;
        }
    shared->done = 1;
}

static uint64_t frames_sent(void)
{
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += shared->bytes[i];
    return bytes / 2;
}

/* Reads once and counts; returns how many frames. */
static size_t take(void)
{
    static unsigned char in[READ];
    static size_t have;
    have += link_read(&receiver, in + have, sizeof in - have);
    size_t frames_here = have / 2;
    for (size_t i = 0; i < frames_here; i++) {
        uint16_t key;
        memcpy(&key, in + 2 * i, 2);
        seen[i % TABLES][key]++;
    }
    if (have % 2) in[0] = in[have - 1];
    have %= 2;
    return frames_here;
}

/* What happened between two moments of the flood. */
struct window {
    double started, ended;
    uint64_t before[SENDERS_MAX], share[SENDERS_MAX];
};

/* Opens the window after the warm-up; closes it after `seconds` and stops the senders. */
static void look_at_clock(struct window *window, double begin, double seconds)
{
    double time = now();
    if (!window->started && time - begin >= WARM_UP) {
        for (int i = 0; i < count; i++) window->before[i] = seen_from(i);
        window->started = time;
    } else if (window->started && !window->ended && time - window->started >= seconds) {
        for (int i = 0; i < count; i++) window->share[i] = seen_from(i) - window->before[i];
        window->ended = time;
        shared->stop = 1;
    }
}

static uint64_t receive_all(struct window *window, double seconds)
{
    struct pollfd poll_receiver = {.fd = receiver.fd, .events = POLLIN};
    uint64_t received = 0;
    double begin = now();
    for (int silent = 0; !shared->done || received < frames_sent();) {
        look_at_clock(window, begin, seconds);
        int is_ready = poll(&poll_receiver, 1, 100) > 0;
        silent = is_ready ? 0 : silent + 100;
        if (silent >= PATIENCE_MS) fail("nothing came for %d s", PATIENCE_MS / 1000);
        if (!is_ready) continue;
        do received += take();
        while (link_has_more(&receiver));
    }
    return received;
}

static void report(const struct window *window, unsigned long long received)
{
    unsigned long long least = UINT64_MAX, most = 0;
    double sum = 0, squares = 0;
    for (int i = 0; i < count; i++) {
        unsigned long long share = window->share[i];
        least = share < least ? share : least;
        most = share > most ? share : most;
        sum += (double)share;
        squares += (double)share * (double)share;
    }
    printf("{\"jain\": %.4f, \"rate\": %.0f, ", squares > 0 ? sum * sum / (count * squares) : 0,
           sum / (window->ended - window->started));
    printf("\"least\": %llu, \"most\": %llu, \"messages\": %llu}\n", least, most, received);
}

static void check_all(unsigned long long received)
{
    unsigned long long sent = frames_sent();
    if (received != sent) fail("%llu frames sent, %llu arrived", sent, received);
    for (int i = 0; i < count; i++)
        if (seen_from(i) != shared->bytes[i] / 2) fail("not all frames of sender %d arrived as sent", number_of(i));
}

static void connect_all(const char *address, struct link *feed)
{
    struct link ends[2];
    if (is_direct) link_pair(ends), *feed = ends[0], receiver = ends[1];
    else receiver = frames.open(address, RECEIVER, 0);
    for (int i = 0; i < count; i++) {
        for (size_t at = 0; at < WRITE; at += 2)
            if (is_direct) frames.deliver(blocks[i] + at, number_of(i), RECEIVER, data_of(i));
            else frames.encode(blocks[i] + at, RECEIVER, data_of(i));
        if (!is_direct) senders[i] = frames.open(address, number_of(i), 0);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) fail("usage: fairness ADDRESS SECONDS SENDERS");
    struct link feed = {.fd = -1};
    is_direct = strcmp(argv[1], "direct") == 0;
    count = atoi(argv[3]);
    if (count < 1 || count > SENDERS_MAX) fail("1 to %d senders", SENDERS_MAX);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    connect_all(argv[1], &feed);
    pid_t child = fork();
    if (child < 0) fail("fork: %s", strerror(errno));
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (is_direct) send_directly(&feed);
        else send_all();
        pause(); /* the connections stay until everything has arrived */
    }
    struct window window = {0};
    uint64_t received = receive_all(&window, atof(argv[2]));
    kill(child, SIGKILL);
    check_all(received);
    report(&window, received);
    return 0;
}
