/* Connections for the load generators: Unix sockets (bound to a name where they have one), TCP, TLS. */
#ifndef LINK_H
#define LINK_H

#include <stddef.h>
#include <sys/types.h>

struct link {
    int fd;
    struct ssl_st *ssl; /* NULL but for tls: */
};

/* One line on standard error, then exit 1: a generator that fails prints no result. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Seconds of the monotonic clock. */
double now(void);

/* Connects to unix:PATH, tcp:HOST:PORT or tls:HOST:PORT, trying for 30 s while no server listens there yet. A Unix
 * socket is bound first to a name that begins with the byte `bound`, in the current directory; 0 leaves it unbound. */
struct link link_connect(const char *address, int bound);

/* Both ends of a socket pair: how a generator measures itself. */
void link_pair(struct link ends[2]);

void link_write(struct link *link, const void *bytes, size_t size);
/* At least one byte; end of file, an error, or 10 s of silence fail. */
size_t link_read(struct link *link, void *bytes, size_t size);
void link_read_exactly(struct link *link, void *bytes, size_t size);
/* TLS only: bytes that were taken from the socket already, of which epoll says nothing. */
int link_has_more(struct link *link);

void link_set_nonblocking(struct link *link);
/* Of a link set non-blocking: how many bytes were taken, 0 when none can be now. */
size_t link_write_some(struct link *link, const void *bytes, size_t size);

#endif
