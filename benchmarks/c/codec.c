#include "codec.h"

#include <string.h>

const struct codec *codec_named(const char *name)
{
    static const struct codec *const all[] = {&frames, &nats, &mqtt, &redis, &dbus};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    fail("no such codec: %s", name);
}

void codec_confirm(const struct codec *codec, struct link *link, int number)
{
    unsigned char message[MESSAGE_MAX], in[4096], data[2048];
    size_t have = 0, count = 0;
    link_write(link, message, codec->encode(message, number, 0xa5));
    while (count == 0) {
        have += link_read(link, in + have, sizeof in - have);
        ssize_t used = codec->decode(in, have, number, data, &count);
        if (used < 0) fail("%s: not what was expected at the start", codec->name);
        if (have == sizeof in && used == 0) fail("%s: too much at the start", codec->name);
        memmove(in, in + used, have -= (size_t)used);
    }
    if (count != 1 || data[0] != 0xa5 || have) fail("%s: the first message came back wrong", codec->name);
}
