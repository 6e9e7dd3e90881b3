/*
 * What the article's client becomes on another host: the same frame out and frame in, over TCP, after a hello.
 *
 *     tcp_client ADDRESS PORT ID [DESTINATION [CHAR [DELAY]]]         (B 1, without a delay)
 *
 * ADDRESS is an IPv4 address, as a static program cannot look up names. DELAY is a number of seconds before the frame is sent,
 * or `-` to wait for a line on standard input. The hello asks for no answer: it is the two bytes `ID 0x80`.
 *
 * Standard error says "connected"; standard output gets the frame, source and data, as one line. The exit status is 1 where
 * the connection failed or ended before a whole frame had come.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in relay = {.sin_family = AF_INET};
    unsigned char bytes[4] = {argc > 3 ? argv[3][0] : 'A', 0x80, argc > 4 ? argv[4][0] : 'B', argc > 5 ? argv[5][0] : '1'};
    char frame[2];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (argc < 4 || inet_pton(AF_INET, argv[1], &relay.sin_addr) != 1) {
        fputs("usage: tcp_client ADDRESS PORT ID [DESTINATION [CHAR [DELAY]]]\n", stderr);
        return 2;
    }
    relay.sin_port = htons(atoi(argv[2]));
    if (connect(fd, (struct sockaddr *)&relay, sizeof(relay)) < 0 || write(fd, bytes, 2) != 2) {
        perror("connect");
        return 1;
    }
    fputs("connected\n", stderr);
    if (argc > 6 && strcmp(argv[6], "-") == 0)
        while (getchar() != '\n' && !feof(stdin))
            ;
    else if (argc > 6)
        sleep((unsigned)atoi(argv[6]));

    if (write(fd, bytes + 2, 2) != 2 || recv(fd, frame, 2, MSG_WAITALL) != 2)
        return 1;
    printf("%.2s\n", frame);
    return 0;
}
