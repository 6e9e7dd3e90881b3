/*
 * The article's server: a yardstick for the relay's behavior and for its speed.
 *
 *     article_server [-v] [PATH]         (server_socket; -v tells when it listens, each connection and each frame)
 *
 * 1. One loop over select(). A connection is accepted alone in its turn; its id is the first byte of the path that the
 *    client has bound, and a client without one has id 0.
 * 2. A frame costs FIONREAD, two reads and two writes of one byte each. A half frame blocks the whole server until its other
 *    half comes, and so does a client that does not read.
 * 3. A frame to an id that no client has is lost without an error. Of two clients with one id the later one gets the frames, as
 *    the table is searched to its end.
 * 4. It takes no lock, and unlinks nothing, neither before it binds nor when it ends.
 *
 * It departs from the article in two things. It serves 255 clients, not 2. And it outlives them: a client at end of file
 * gives its place back, where the article's server would spin at full speed, and die from SIGPIPE on the next frame to it.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS 255

static struct {
    int fd;
    char id;
} clients[CLIENTS];
static int count;
static fd_set watched;
static int highest;
static int verbose;

static int listen_on(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, CLIENTS) < 0) {
        perror(path);
        return -1;
    }
    return fd;
}

static void admit(int listener)
{
    struct sockaddr_un address = {0};
    socklen_t length = sizeof(address);
    int fd = accept(listener, (struct sockaddr *)&address, &length);

    if (fd < 0)
        return;
    if (count == CLIENTS) {
        close(fd);
        return;
    }
    clients[count].fd = fd;
    clients[count].id = address.sun_path[0];
    FD_SET(fd, &watched);
    if (fd > highest)
        highest = fd;
    if (verbose)
        printf("client %c on descriptor %d\n", clients[count].id, fd);
    count++;
}

static void dismiss(int client)
{
    FD_CLR(clients[client].fd, &watched);
    close(clients[client].fd);
    count--;
    memmove(&clients[client], &clients[client + 1], (count - client) * sizeof(clients[0]));
}

static void forward(int client)
{
    char destination, data;
    int to = -1;

    if (read(clients[client].fd, &destination, 1) != 1 || read(clients[client].fd, &data, 1) != 1)
        return;
    for (int i = 0; i < count; i++)
        if (clients[i].id == destination)
            to = clients[i].fd;
    if (verbose)
        printf("%c from %c to %c on descriptor %d\n", data, clients[client].id, destination, to);
    if (write(to, &clients[client].id, 1) != 1 || write(to, &data, 1) != 1)
        return;
}

int main(int argc, char **argv)
{
    const char *path = "server_socket";
    int listener;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") == 0)
            verbose = 1;
        else
            path = argv[i];
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    listener = highest = listen_on(path);
    if (listener < 0)
        return 1;
    FD_SET(listener, &watched);
    if (verbose)
        printf("listening on %s\n", path);

    for (;;) {
        fd_set ready = watched;

        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0) {
            perror("select");
            return 1;
        }
        if (FD_ISSET(listener, &ready)) {
            admit(listener);
            continue;
        }
        for (int i = count - 1; i >= 0; i--) {
            int waiting = 0;

            if (!FD_ISSET(clients[i].fd, &ready))
                continue;
            ioctl(clients[i].fd, FIONREAD, &waiting);
            if (waiting > 0)
                forward(i);
            else
                dismiss(i);
        }
    }
}
