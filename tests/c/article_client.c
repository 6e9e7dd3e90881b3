/*
 * The article's client: it binds a name, connects, sends one frame, waits for one frame.
 *
 *     article_client [ID [DESTINATION [CHAR [DELAY]]]]         (A B 1, without a delay)
 *
 * ID is the path that the client's own socket is bound to, relative to the working directory; its first byte is what others
 * call this client. DELAY stands where the article waits ten seconds for the other client to start: a number of seconds, or
 * `-` to wait for a line on standard input.
 *
 * The socket calls and their order are the article's: socket, bind, connect, write, write, read, read, close, one byte at a
 * time. As there, a bind that fails is not noticed, so the client goes on without a name, and nothing is ever unlinked.
 *
 * Standard error says "connected"; standard output gets the frame, source and data, as one line. The exit status is 1 where
 * the connection failed or ended before a whole frame had come.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    return address;
}

static void wait_for_the_other(const char *delay)
{
    if (strcmp(delay, "-") == 0) {
        while (getchar() != '\n' && !feof(stdin))
            ;
    } else {
        sleep((unsigned)atoi(delay));
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_un own = address_of(argc > 1 ? argv[1] : "A");
    struct sockaddr_un server = address_of("server_socket");
    char destination = argc > 2 ? argv[2][0] : 'B';
    char data = argc > 3 ? argv[3][0] : '1';
    char source = 0;
    ssize_t sent, received;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    bind(fd, (struct sockaddr *)&own, sizeof(own));
    if (connect(fd, (struct sockaddr *)&server, sizeof(server)) < 0) {
        perror("connect to server_socket");
        return 1;
    }
    fputs("connected\n", stderr);
    if (argc > 4)
        wait_for_the_other(argv[4]);

    sent = write(fd, &destination, 1);
    sent += write(fd, &data, 1);
    received = read(fd, &source, 1);
    received += read(fd, &data, 1);
    if (sent == 2 && received == 2)
        printf("%c%c\n", source, data);
    close(fd);
    return sent == 2 && received == 2 ? 0 : 1;
}
