/* watch PATH: reads GET /monitor from the admin endpoint on the Unix socket PATH, says `ready` once it is granted,
 * discards what comes until the end of standard input, and prints how many lines it was.
 */
#include "link.h"

#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char REQUEST[] = "GET /monitor HTTP/1.1\r\nHost: localhost\r\n\r\n";

/* Reads the answer's status line and headers; what comes after them may have begun already. */
static void expect_granted(struct link *link)
{
    char head[4096];
    size_t have = 0;
    do {
        if (have == sizeof head - 1) fail("the answer's headers do not end");
        have += link_read(link, head + have, sizeof head - 1 - have);
        head[have] = 0;
    } while (!strstr(head, "\r\n\r\n"));
    if (strncmp(head, "HTTP/1.1 200", 12) != 0) fail("GET /monitor: %.*s", (int)strcspn(head, "\r\n"), head);
}

int main(int argc, char **argv)
{
    static char in[1 << 18];
    char address[128];
    uint64_t lines = 0;
    if (argc != 2) fail("usage: watch PATH");
    snprintf(address, sizeof address, "unix:%s", argv[1]);
    struct link link = link_connect(address, 0);
    link_write(&link, REQUEST, sizeof REQUEST - 1);
    expect_granted(&link);
    puts("ready");
    fflush(stdout);
    struct pollfd both[2] = {{.fd = link.fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    while (poll(both, 2, -1) >= 0 && !both[1].revents) {
        size_t size = link_read(&link, in, sizeof in);
        for (char *next = in; (next = memchr(next, '\n', (size_t)(in + size - next))); next++) lines++;
    }
    printf("{\"lines\": %llu}\n", (unsigned long long)lines);
    return 0;
}
