#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { PATIENCE = 10 }; /* seconds without a byte before a generator gives up */
enum { START_PATIENCE = 30 }; /* seconds without a listener; the program that started a server notices its end */

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int unix_socket(const char *path, int bound)
{
    struct sockaddr_un server = {.sun_family = AF_UNIX}, own = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof server.sun_path) fail("socket path too long: %s", path);
    strcpy(server.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket: %s", strerror(errno));
    if (bound) {
        /* A second character, so that the id '.' is not the name of a directory. */
        snprintf(own.sun_path, sizeof own.sun_path, "%c~", bound);
        unlink(own.sun_path);
        if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0) fail("bind to %s: %s", own.sun_path, strerror(errno));
    }
    int result = connect(fd, (struct sockaddr *)&server, sizeof server), error = errno;
    if (bound) unlink(own.sun_path); /* the kernel keeps the name that the server asks for */
    if (result == 0) return fd;
    close(fd);
    errno = error;
    return -1;
}

static int tcp_socket(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(host, port, &hints, &found), yes = 1;
    if (error) fail("%s:%s: %s", host, port, gai_strerror(error));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket: %s", strerror(errno));
    int result = connect(fd, found->ai_addr, found->ai_addrlen);
    error = errno;
    freeaddrinfo(found);
    if (result < 0) {
        close(fd);
        errno = error;
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

#ifdef WITH_TLS
static struct ssl_st *start_tls(int fd)
{
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        /* The certificate is the benchmark's own, made for this run: encrypting is what is measured here, not
         * trust. */
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(context, 1); /* one system call a record rather than two */
        SSL_CTX_set_default_read_buffer_len(context, 1 << 16);
    }
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1) fail("TLS handshake: %s", ERR_reason_error_string(ERR_peek_error()));
    return ssl;
}
#else
static struct ssl_st *start_tls(int fd)
{
    (void)fd;
    fail("built without OpenSSL's headers");
}
#endif

static struct link ready(int fd, struct ssl_st *ssl)
{
    struct timeval patience = {.tv_sec = PATIENCE};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return (struct link){fd, ssl};
}

struct link link_connect(const char *address, int bound)
{
    char host[128] = "", port[16] = "";
    int is_unix = strncmp(address, "unix:", 5) == 0, is_tls = strncmp(address, "tls:", 4) == 0;
    if (!is_unix && sscanf(address, "%*[a-z]:%127[^:]:%15[0-9]", host, port) != 2) fail("not an address: %s", address);
    for (double start = now();;) {
        int fd = is_unix ? unix_socket(address + 5, bound) : tcp_socket(host, port);
        if (fd >= 0) return ready(fd, is_tls ? start_tls(fd) : NULL);
        int is_early = errno == ENOENT || errno == ECONNREFUSED;
        if (!is_early || now() - start > START_PATIENCE) fail("connect to %s: %s", address, strerror(errno));
        usleep(1000);
    }
}

void link_pair(struct link ends[2])
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) fail("socketpair: %s", strerror(errno));
    for (int i = 0; i < 2; i++) ends[i] = ready(fds[i], NULL);
}

#ifdef WITH_TLS
/* What a TLS call that did not succeed means: 0 to try again later, or the end of this program. */
static size_t tls_trouble(struct link *link, int result, const char *doing)
{
    int error = SSL_get_error(link->ssl, result), nonblocking = fcntl(link->fd, F_GETFL) & O_NONBLOCK;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        if (nonblocking) return 0;
        fail("%s: nothing for %d s", doing, PATIENCE);
    }
    fail("%s: %s", doing, error == SSL_ERROR_ZERO_RETURN ? "the server closed the connection" : "the connection broke");
}

static size_t tls_write(struct link *link, const void *bytes, size_t size)
{
    size_t written = 0;
    int result = SSL_write_ex(link->ssl, bytes, size, &written);
    return result == 1 ? written : tls_trouble(link, result, "write");
}

static size_t tls_read(struct link *link, void *bytes, size_t size)
{
    size_t taken = 0;
    int result = SSL_read_ex(link->ssl, bytes, size, &taken);
    return result == 1 ? taken : tls_trouble(link, result, "read");
}

int link_has_more(struct link *link) { return link->ssl && SSL_has_pending(link->ssl); }
#else
static size_t tls_write(struct link *link, const void *bytes, size_t size) { (void)link, (void)bytes; return size; }
static size_t tls_read(struct link *link, void *bytes, size_t size) { (void)link, (void)bytes; return size; }
int link_has_more(struct link *link) { (void)link; return 0; }
#endif

void link_write(struct link *link, const void *bytes, size_t size)
{
    for (const char *next = bytes; size;) {
        ssize_t written = link->ssl ? (ssize_t)tls_write(link, next, size) : send(link->fd, next, size, MSG_NOSIGNAL);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail("write: %s", errno == EAGAIN ? "nothing taken for 10 s" : strerror(errno));
        next += written;
        size -= (size_t)written;
    }
}

size_t link_read(struct link *link, void *bytes, size_t size)
{
    if (link->ssl) return tls_read(link, bytes, size);
    for (;;) {
        ssize_t taken = recv(link->fd, bytes, size, 0);
        if (taken > 0) return (size_t)taken;
        if (taken == 0) fail("read: the server closed the connection");
        if (errno != EINTR) fail("read: %s", errno == EAGAIN ? "nothing came for 10 s" : strerror(errno));
    }
}

void link_read_exactly(struct link *link, void *bytes, size_t size)
{
    for (char *next = bytes; size;) {
        size_t taken = link_read(link, next, size);
        next += taken;
        size -= taken;
    }
}

void link_set_nonblocking(struct link *link) { fcntl(link->fd, F_SETFL, fcntl(link->fd, F_GETFL) | O_NONBLOCK); }

size_t link_write_some(struct link *link, const void *bytes, size_t size)
{
    if (link->ssl) return tls_write(link, bytes, size);
    ssize_t written = send(link->fd, bytes, size, MSG_NOSIGNAL);
    if (written < 0 && errno != EAGAIN && errno != EINTR) fail("write: %s", strerror(errno));
    return written < 0 ? 0 : (size_t)written;
}
