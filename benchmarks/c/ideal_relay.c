/* ideal_relay unix:PATH | tcp:PORT: the yardstick. The least that a relay of these frames can do: one epoll, reads
 * of 64 KiB, one loop over the frames, one write per destination. It trusts its clients: nothing is bounded, logged
 * or counted, and a client that does not read holds up all others. Ids come from a bound Unix path or from a hello
 * with the ACK bit.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ = 65536, CLIENTS = 4096, HELLO_WITH_ANSWER = 0x81 };

static int id_of[CLIENTS], fd_of[256];
static int half_of[CLIENTS]; /* a destination whose data byte is still to come, else -1 */
static unsigned char in[READ], out[256][READ + 2];
static size_t filled[256];
static unsigned char touched[256];
static int touched_count;

static int listen_on(const char *address)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int is_unix = strncmp(address, "unix:", 5) == 0, yes = 1;
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    strncpy(local.sun_path, address + 5, sizeof local.sun_path - 1);
    inet.sin_port = htons((unsigned short)atoi(address + 4));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    int bound = is_unix ? bind(fd, (void *)&local, sizeof local) : bind(fd, (void *)&inet, sizeof inet);
    if (bound < 0 || listen(fd, 512) < 0) {
        perror(address);
        exit(1);
    }
    return fd;
}

static void welcome(int poll, int listener)
{
    struct sockaddr_un peer = {0};
    socklen_t size = sizeof peer;
    int fd = accept(listener, (struct sockaddr *)&peer, &size), yes = 1;
    if (fd < 0 || fd >= CLIENTS) exit(1);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    char *slash = strrchr(peer.sun_path, '/');
    int is_named = peer.sun_family == AF_UNIX && size > sizeof peer.sun_family;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    half_of[fd] = -1;
    id_of[fd] = is_named ? (unsigned char)(slash ? slash[1] : peer.sun_path[0]) : 0;
    if (id_of[fd]) fd_of[id_of[fd]] = fd;
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
}

static void put(int destination, unsigned char source, unsigned char data)
{
    unsigned char *next = out[destination] + filled[destination];
    if (!filled[destination]) touched[touched_count++] = (unsigned char)destination;
    next[0] = source;
    next[1] = data;
    filled[destination] += 2;
}

static void relay(int fd)
{
    ssize_t size = recv(fd, in, sizeof in, 0);
    ssize_t at = 0;
    if (size <= 0) {
        if (id_of[fd]) fd_of[id_of[fd]] = -1;
        close(fd);
        return;
    }
    if (!id_of[fd] && size >= 2 && in[1] == HELLO_WITH_ANSWER) {
        unsigned char answer[2] = {in[0], 0};
        fd_of[id_of[fd] = in[0]] = fd;
        send(fd, answer, 2, MSG_NOSIGNAL);
        at = 2;
    }
    unsigned char source = (unsigned char)id_of[fd];
    if (half_of[fd] >= 0) {
        put(half_of[fd], source, in[0]);
        half_of[fd] = -1;
        at = 1;
    }
    for (; at + 1 < size; at += 2) put(in[at], source, in[at + 1]);
    if (at < size) half_of[fd] = in[at];
    for (int i = 0; i < touched_count; i++) {
        int destination = touched[i], to = fd_of[destination];
        for (size_t done = 0; to >= 0 && done < filled[destination];) {
            ssize_t written = send(to, out[destination] + done, filled[destination] - done, MSG_NOSIGNAL);
            if (written < 0) break;
            done += (size_t)written;
        }
        filled[destination] = 0;
    }
    touched_count = 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    memset(fd_of, -1, sizeof fd_of);
    int listener = listen_on(argv[1]), poll = epoll_create1(0);
    struct epoll_event events[64] = {{.events = EPOLLIN, .data.fd = listener}};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &events[0]);
    for (;;) {
        int ready = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < ready; i++)
            if (events[i].data.fd == listener) welcome(poll, listener);
            else relay(events[i].data.fd);
    }
}
