/*
 * A complete client in C: sends each line of standard input to a peer as one message, and prints what it receives.
 *
 *     cc -o client client.c
 *     ./client server_socket A B               over a Unix socket
 *     ./client relay.example 9734 A B          over TCP
 *
 * It prints "B: text" for a message, and "JOINED B", "LEFT B", "NO_ROUTE B", "DROPPED B" for events. It ends when its input
 * ends and all of it is delivered or dropped (the relay answers FLUSH), or when the relay closes the connection (exit status 1).
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "triorelay.h"

enum { LINE_MAX_SIZE = 1024, FLUSH_NUMBER = 1 };

struct client {
    int relay;
    uint8_t peer;
    struct triorelay_reader reader;
    struct triorelay_messages from_peer; /* this program shows messages of its peer only */
    uint8_t out[TRIORELAY_FRAMES_SIZE(TRIORELAY_MESSAGE_SIZE(LINE_MAX_SIZE))]; /* what is to be written */
    size_t out_begin, out_end;
    char line[LINE_MAX_SIZE];
    size_t line_size;
    int input_ended, flush_sent;
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "client: %s\n", what);
    exit(1);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) fail("the path is too long");
    strcpy(address.sun_path, path);
    int relay = socket(AF_UNIX, SOCK_STREAM, 0);
    if (relay < 0 || connect(relay, (struct sockaddr *)&address, sizeof address) < 0) fail(strerror(errno));
    return relay;
}

static int connect_tcp(const char *host, const char *port)
{
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(host, port, &hints, &found);
    if (error) fail(gai_strerror(error));
    int relay = -1;
    for (struct addrinfo *address = found; address && relay < 0; address = address->ai_next) {
        relay = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
        if (relay >= 0 && connect(relay, address->ai_addr, address->ai_addrlen) < 0) {
            close(relay);
            relay = -1;
        }
    }
    freeaddrinfo(found);
    if (relay < 0) fail("no connection");
    return relay;
}

/* Claims the id and reads the answer: two bytes, before anything else that the relay sends. */
static void say_hello(int relay, uint8_t id)
{
    uint8_t hello[TRIORELAY_HELLO_MAX], answer[2];
    size_t size = triorelay_hello(hello, id, TRIORELAY_EVENTS, NULL, 0);
    if (write(relay, hello, size) != (ssize_t)size) fail("the relay does not take the hello");
    if (recv(relay, answer, sizeof answer, MSG_WAITALL) != sizeof answer) fail("the relay does not answer");
    if (answer[1] == TRIORELAY_ID_TAKEN) fail("the id is taken");
    if (answer[1] != TRIORELAY_WELCOME) fail("the relay refuses the id");
}

static void handle_event(struct client *client, uint8_t code, uint8_t argument)
{
    static const char *const names[] = {
        [TRIORELAY_JOINED] = "JOINED", [TRIORELAY_LEFT] = "LEFT", [TRIORELAY_NO_ROUTE] = "NO_ROUTE",
        [TRIORELAY_DROPPED] = "DROPPED"};
    if (code == TRIORELAY_FLUSHED && argument == FLUSH_NUMBER && client->flush_sent) exit(0);
    if (code == TRIORELAY_LEFT && argument == client->peer) client->from_peer.size = 0;
    if (code < sizeof names / sizeof *names && names[code]) printf("%s %c\n", names[code], argument);
}

static void handle_input(struct client *client, const uint8_t *bytes, size_t size)
{
    struct triorelay_item item;
    for (size_t i = 0; i < size; i++) {
        switch (triorelay_read(&client->reader, bytes[i], &item)) {
        case TRIORELAY_DATA:
            if (item.id == client->peer) {
                ptrdiff_t payload = triorelay_read_message(&client->from_peer, item.data);
                if (payload >= 0) printf("%c: %.*s\n", item.id, (int)payload, (char *)client->from_peer.block);
            }
            break;
        case TRIORELAY_EVENT: handle_event(client, item.id, item.data); break;
        case TRIORELAY_INVALID: fail("the relay breaks the protocol");
        case TRIORELAY_NOTHING: break;
        }
    }
}

static void queue(struct client *client, size_t size)
{
    client->out_begin = 0;
    client->out_end = size;
}

/* Queues the first whole line as a message, or where the input has ended, the request to flush. */
static void queue_line(struct client *client)
{
    char *end = memchr(client->line, '\n', client->line_size);
    if (end) {
        size_t size = (size_t)(end - client->line);
        size_t message = triorelay_message(client->out, client->line, size);
        queue(client, triorelay_frames(client->out, client->peer, client->out, message));
        client->line_size -= size + 1;
        memmove(client->line, end + 1, client->line_size);
    } else if (client->input_ended && !client->flush_sent) {
        queue(client, triorelay_request(client->out, TRIORELAY_FLUSH, FLUSH_NUMBER));
        client->flush_sent = 1;
    } else if (client->line_size == sizeof client->line) {
        fail("the line is too long");
    }
}

static void read_line(struct client *client)
{
    ssize_t size = read(0, client->line + client->line_size, sizeof client->line - client->line_size);
    if (size > 0) client->line_size += (size_t)size;
    else client->input_ended = 1;
}

static void read_relay(struct client *client)
{
    uint8_t bytes[4096];
    ssize_t size = read(client->relay, bytes, sizeof bytes);
    if (size > 0) handle_input(client, bytes, (size_t)size);
    else if (size == 0 || (errno != EAGAIN && errno != EINTR)) fail("the relay has closed the connection");
}

static void write_relay(struct client *client)
{
    ssize_t size = write(client->relay, client->out + client->out_begin, client->out_end - client->out_begin);
    if (size > 0) client->out_begin += (size_t)size;
    else if (errno != EAGAIN && errno != EINTR) fail("the relay has closed the connection");
}

/*
 * Reads always, also while it cannot write: two clients that write to each other and do not read would pause each other.
 * Reads standard input only when all that it read before is written.
 */
static void run(struct client *client)
{
    for (;;) {
        if (client->out_begin == client->out_end) queue_line(client);
        int writing = client->out_begin < client->out_end;
        struct pollfd ready[] = {
            {client->relay, (short)(POLLIN | (writing ? POLLOUT : 0)), 0},
            {writing || client->input_ended ? -1 : 0, POLLIN, 0}};
        if (poll(ready, 2, -1) < 0 && errno != EINTR) fail(strerror(errno));
        if (ready[0].revents & (POLLIN | POLLHUP | POLLERR)) read_relay(client);
        if (ready[0].revents & POLLOUT) write_relay(client);
        if (ready[1].revents) read_line(client);
        fflush(stdout);
    }
}

int main(int count, char **words)
{
    static uint8_t block[TRIORELAY_MESSAGE_SIZE(65536)];
    static struct client client = {.from_peer = {.block = block, .capacity = sizeof block}};
    if (count != 4 && count != 5) fail("usage: client PATH ID PEER, or client HOST PORT ID PEER");
    signal(SIGPIPE, SIG_IGN); /* a write to a relay that is gone returns an error */
    client.relay = count == 4 ? connect_unix(words[1]) : connect_tcp(words[1], words[2]);
    client.peer = (uint8_t)words[count - 1][0];
    say_hello(client.relay, (uint8_t)words[count - 2][0]);
    fcntl(client.relay, F_SETFL, O_NONBLOCK);
    client.out[0] = client.peer; /* the data byte 0 that ends what an earlier client of this id left unfinished */
    client.out[1] = 0;
    queue(&client, 2);
    run(&client);
}
