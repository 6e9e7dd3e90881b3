/*
 * docs/examples/c/triorelay.h, driven by lines of standard input, so that a test can compare it with the library:
 *
 *     hello ID OPTIONS TOKEN    frames ID DATA    request CODE ARGUMENT    message PAYLOAD     print the bytes written
 *     read BYTES                prints d SOURCE BYTE, e CODE ARGUMENT, or invalid
 *     messages LIMIT DATA       prints each payload, then the number of blocks discarded
 *     call KIND NUMBER PAYLOAD  prints the message; of a FAIL the payload begins with the reason
 *     read-call MESSAGE         prints KIND NUMBER REASON PAYLOAD, or invalid
 *
 * Bytes are hexadecimal, `-` stands for none. Every buffer has exactly the size that the header asks for, so that the address
 * sanitizer sees each byte too many.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "triorelay.h"

enum { LINE = 1 << 22 };

struct bytes {
    uint8_t *at;
    size_t size;
};

static uint8_t *buffer(size_t size)
{
    uint8_t *at = malloc(size ? size : 1);
    if (!at) abort();
    return at;
}

static struct bytes parse(const char *hex)
{
    size_t size = strcmp(hex, "-") ? strlen(hex) / 2 : 0;
    struct bytes bytes = {buffer(size), size};
    for (size_t i = 0; i < size; i++) {
        unsigned value;
        if (sscanf(hex + 2 * i, "%2x", &value) != 1) abort();
        bytes.at[i] = (uint8_t)value;
    }
    return bytes;
}

static void show(const uint8_t *at, size_t size)
{
    if (size == 0) printf("-");
    for (size_t i = 0; i < size; i++) printf("%02x", at[i]);
}

static unsigned number(void)
{
    return (unsigned)strtoul(strtok(NULL, " "), NULL, 10);
}

static void write_hello(void)
{
    unsigned id = number(), options = number();
    struct bytes token = parse(strtok(NULL, " "));
    uint8_t *out = buffer(token.size ? 3 + token.size : 2);
    show(out, triorelay_hello(out, (uint8_t)id, options, token.at, token.size));
    free(out);
    free(token.at);
}

static void write_frames(void)
{
    unsigned id = number();
    struct bytes data = parse(strtok(NULL, " "));
    uint8_t *out = buffer(TRIORELAY_FRAMES_SIZE(data.size)), *in_place = buffer(TRIORELAY_FRAMES_SIZE(data.size));
    size_t size = triorelay_frames(out, (uint8_t)id, data.at, data.size);
    memcpy(in_place, data.at, data.size);
    triorelay_frames(in_place, (uint8_t)id, in_place, data.size);
    if (memcmp(out, in_place, size)) abort();
    show(out, size);
    free(in_place);
    free(out);
    free(data.at);
}

static void write_request(void)
{
    unsigned code = number(), argument = number();
    uint8_t out[TRIORELAY_REQUEST_SIZE];
    show(out, triorelay_request(out, (uint8_t)code, (uint8_t)argument));
}

static void write_message(void)
{
    struct bytes payload = parse(strtok(NULL, " "));
    uint8_t *out = buffer(TRIORELAY_MESSAGE_SIZE(payload.size));
    show(out, triorelay_message(out, payload.at, payload.size));
    free(out);
    free(payload.at);
}

static void read_bytes(void)
{
    struct bytes bytes = parse(strtok(NULL, " "));
    struct triorelay_reader reader = {0};
    struct triorelay_item item;
    for (size_t i = 0; i < bytes.size; i++) {
        enum triorelay_found found = triorelay_read(&reader, bytes.at[i], &item);
        if (found == TRIORELAY_DATA) printf("d %u %u ", item.id, item.data);
        if (found == TRIORELAY_EVENT) printf("e %u %u ", item.id, item.data);
        if (found == TRIORELAY_INVALID) {
            printf("invalid");
            break;
        }
    }
    free(bytes.at);
}

static void read_messages(void)
{
    unsigned limit = number();
    size_t capacity = TRIORELAY_MESSAGE_SIZE(limit);
    struct bytes data = parse(strtok(NULL, " "));
    struct triorelay_messages messages = {.block = buffer(capacity), .capacity = capacity};
    for (size_t i = 0; i < data.size; i++) {
        ptrdiff_t size = triorelay_read_message(&messages, data.at[i]);
        if (size < 0) continue;
        show(messages.block, (size_t)size);
        printf(" ");
    }
    printf("%zu", messages.discarded);
    free(messages.block);
    free(data.at);
}

static void write_call(void)
{
    unsigned kind = number(), call_number = number();
    struct bytes payload = parse(strtok(NULL, " "));
    uint8_t *out = buffer(TRIORELAY_CALL_HEADER_SIZE + payload.size);
    size_t size = triorelay_call_header(out, (enum triorelay_call_kind)kind, call_number);
    memcpy(out + size, payload.at, payload.size);
    show(out, size + payload.size);
    free(out);
    free(payload.at);
}

static void read_call(void)
{
    struct bytes message = parse(strtok(NULL, " "));
    struct triorelay_call call;
    if (triorelay_read_call(message.at, message.size, &call)) {
        printf("%u %u %u ", (unsigned)call.kind, (unsigned)call.number, call.reason);
        show(call.payload, call.size);
    } else {
        printf("invalid");
    }
    free(message.at);
}

int main(void)
{
    static char line[LINE];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        const char *what = strtok(line, " ");
        if (!what) abort();
        if (!strcmp(what, "hello")) write_hello();
        else if (!strcmp(what, "frames")) write_frames();
        else if (!strcmp(what, "request")) write_request();
        else if (!strcmp(what, "message")) write_message();
        else if (!strcmp(what, "read")) read_bytes();
        else if (!strcmp(what, "messages")) read_messages();
        else if (!strcmp(what, "call")) write_call();
        else if (!strcmp(what, "read-call")) read_call();
        else abort();
        putchar('\n');
        fflush(stdout);
    }
    return 0;
}
