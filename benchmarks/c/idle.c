/* idle ADDRESS CLIENTS: connects that many clients, says `ready`, and holds them until a line or the end of
 * standard input.
 *
 * Then each sends one frame to the next, and each must get it: all were there the whole time. Our frames only.
 */
#include "codec.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static struct link links[256];
    if (argc != 3) fail("usage: idle ADDRESS CLIENTS");
    int count = atoi(argv[2]);
    if (count < 1 || count > 255) fail("1 to 255 clients");
    for (int i = 1; i <= count; i++) links[i] = frames.open(argv[1], i, 0);
    puts("ready");
    fflush(stdout);
    getchar();
    for (int i = 1; i <= count; i++) {
        int next = i % count + 1;
        unsigned char frame[2] = {(unsigned char)next, 'x'};
        link_write(&links[i], frame, 2);
        link_read_exactly(&links[next], frame, 2);
        if (frame[0] != i || frame[1] != 'x') fail("client %d got a wrong frame", next);
    }
    printf("{\"clients\": %d}\n", count);
    return 0;
}
