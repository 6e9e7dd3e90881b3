/*
 * A client as in the article: two bytes out, two bytes in, over a socket that is bound to the name it wants to have.
 *
 *     article ID DESTINATION         (in the directory where server_socket is)
 *
 * Once a second it sends the next digit to DESTINATION, and prints each frame that comes, until the relay hangs up. Unlike
 * the article's it removes the socket that an earlier run of its own has left: a second bind to that path would fail, and a
 * client without a name is no client.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    struct sockaddr_un server = {.sun_family = AF_UNIX, .sun_path = "server_socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char digit = '0';

    if (argc != 3) {
        fprintf(stderr, "usage: article ID DESTINATION\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    strncpy(own.sun_path, argv[1], sizeof(own.sun_path) - 1);
    unlink(own.sun_path);
    if (bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0) {
        perror("bind");
        return 1;
    }
    if (connect(fd, (struct sockaddr *)&server, sizeof(server)) < 0) {
        perror("connect");
        return 1;
    }
    for (;;) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        char source, data;

        if (poll(&readable, 1, 1000) == 0) {
            if (write(fd, &argv[2][0], 1) != 1 || write(fd, &digit, 1) != 1)
                return 1;
            digit = digit == '9' ? '0' : digit + 1;
            continue;
        }
        if (read(fd, &source, 1) != 1 || read(fd, &data, 1) != 1)
            return 1;
        printf("%c from %c\n", data, source);
    }
}
