/*
 * triorelay.h: the wire protocol of triorelay for C programs, in one header, without allocation, input or output.
 *
 * Copy this file into your program. It needs C99 and nothing else: no libc functions, no threads, no global state. It also
 * compiles as part of firmware.
 *
 * To write, build bytes in a buffer of yours and write them to the connection:
 *
 *     uint8_t hello[TRIORELAY_HELLO_MAX];
 *     size_t size = triorelay_hello(hello, 'A', TRIORELAY_EVENTS, NULL, 0);
 *
 *     uint8_t frames[TRIORELAY_FRAMES_SIZE(5)];
 *     size = triorelay_frames(frames, 'B', "hello", 5);
 *
 *     uint8_t message[TRIORELAY_FRAMES_SIZE(TRIORELAY_MESSAGE_SIZE(5))];
 *     size = triorelay_message(message, "hello", 5);
 *     size = triorelay_frames(message, 'B', message, size);           (in place)
 *
 * To read, give each byte that arrives to triorelay_read(), and each data byte of one source to triorelay_read_message():
 *
 *     struct triorelay_reader reader = {0};
 *     struct triorelay_item item;
 *     if (triorelay_read(&reader, byte, &item) == TRIORELAY_EVENT && item.id == TRIORELAY_LEFT) ...
 *
 * The *_SIZE macros are constants for constant arguments, and evaluate their argument more than once.
 *
 * docs/reference/wire.md is the specification. docs/examples/c/client.c is a complete program.
 */
#ifndef TRIORELAY_H
#define TRIORELAY_H

#include <stddef.h>
#include <stdint.h>

/* -- hello ------------------------------------------------------------------------------------------------------------- */

enum triorelay_option {
    TRIORELAY_ACK = 0x01,    /* answer with a welcome or a refusal */
    TRIORELAY_EVENTS = 0x02, /* answer, and send events */
    TRIORELAY_TOKEN = 0x04,  /* a token follows; triorelay_hello() sets this bit itself */
    TRIORELAY_SHARE = 0x08,  /* hold the id together with other clients that ask for the same */
    TRIORELAY_LOSSY = 0x10   /* while the queue is full, drop new frames instead of pausing the sender */
};

enum { TRIORELAY_TOKEN_MAX = 255, TRIORELAY_HELLO_MAX = 3 + TRIORELAY_TOKEN_MAX };

/* The second byte of the answer to a hello. */
enum triorelay_answer {
    TRIORELAY_WELCOME = 0,
    TRIORELAY_ID_TAKEN = 1,
    TRIORELAY_NOT_ALLOWED = 2,
    TRIORELAY_BAD_HELLO = 3,
    TRIORELAY_FULL = 4,
    TRIORELAY_SHUTTING_DOWN = 5,
    TRIORELAY_AUTHENTICATION = 6,
    TRIORELAY_UNAVAILABLE = 7
};

/*
 * Writes a hello that claims `id` to `out`, which has room for TRIORELAY_HELLO_MAX bytes, and returns its size.
 * Returns 0 if the protocol allows no such hello: a token of more than 255 bytes, id 0 without ACK or EVENTS, or id 0 with
 * SHARE.
 */
static inline size_t triorelay_hello(uint8_t *out, uint8_t id, unsigned options, const void *token, size_t token_size)
{
    if (token_size > TRIORELAY_TOKEN_MAX) return 0;
    if (id == 0 && (!(options & (TRIORELAY_ACK | TRIORELAY_EVENTS)) || (options & TRIORELAY_SHARE))) return 0;
    options &= ~(unsigned)TRIORELAY_TOKEN;
    out[0] = id;
    out[1] = (uint8_t)(0x80 | options);
    if (token_size == 0) return 2;
    out[1] |= TRIORELAY_TOKEN;
    out[2] = (uint8_t)token_size;
    for (size_t i = 0; i < token_size; i++) out[3 + i] = ((const uint8_t *)token)[i];
    return 3 + token_size;
}

/* -- frames ------------------------------------------------------------------------------------------------------------ */

#define TRIORELAY_FRAMES_SIZE(data_size) (2 * (size_t)(data_size))

/*
 * Writes one frame to `id` for each byte of `data` to `out`, which has room for TRIORELAY_FRAMES_SIZE(size) bytes, and
 * returns that size. `out` may be `data` itself, so that what is there is replaced by its frames.
 */
static inline size_t triorelay_frames(uint8_t *out, uint8_t id, const void *data, size_t size)
{
    for (size_t i = size; i-- > 0;) { /* from the end: a byte is read before its place is overwritten */
        out[2 * i + 1] = ((const uint8_t *)data)[i];
        out[2 * i] = id;
    }
    return 2 * size;
}

/* -- events and requests ----------------------------------------------------------------------------------------------- */

enum triorelay_event_code {
    TRIORELAY_JOINED = 1,
    TRIORELAY_LEFT = 2,
    TRIORELAY_NO_ROUTE = 3,
    TRIORELAY_DROPPED = 4,
    TRIORELAY_DRAINING = 5,
    TRIORELAY_PONG = 6,
    TRIORELAY_SYNCED = 7,
    TRIORELAY_FLUSHED = 8,
    TRIORELAY_CLOSING = 9
};

enum triorelay_request_code { TRIORELAY_PING = 6, TRIORELAY_LIST = 7, TRIORELAY_FLUSH = 8 };

enum { TRIORELAY_REQUEST_SIZE = 4 };

/* Writes a request to the relay to `out`, which has room for 4 bytes, and returns 4. */
static inline size_t triorelay_request(uint8_t *out, uint8_t code, uint8_t argument)
{
    out[0] = 0;
    out[1] = code;
    out[2] = 0;
    out[3] = argument;
    return TRIORELAY_REQUEST_SIZE;
}

enum triorelay_found {
    TRIORELAY_NOTHING, /* the byte completes nothing */
    TRIORELAY_DATA,    /* item: the source and the data byte of a frame */
    TRIORELAY_EVENT,   /* item: the code and the argument of an event */
    TRIORELAY_INVALID  /* a frame came between the two frames of an event: close the connection */
};

struct triorelay_item {
    uint8_t id;   /* the source of data, or the code of an event */
    uint8_t data; /* the data byte, or the argument of an event */
};

/* What has arrived of a frame and of an event. Begin with {0}. The answer to a hello is a frame too: read it first. */
struct triorelay_reader {
    uint8_t id, code;
    uint8_t half;     /* whether `id` waits for its data byte */
    uint8_t in_event; /* whether `code` waits for its argument */
};

/* Takes the next byte from the relay; says what it completes and stores that in `item`. */
static inline enum triorelay_found triorelay_read(struct triorelay_reader *reader, uint8_t byte, struct triorelay_item *item)
{
    if (!reader->half) {
        reader->id = byte;
        reader->half = 1;
        return TRIORELAY_NOTHING;
    }
    reader->half = 0;
    if (reader->id != 0) {
        item->id = reader->id;
        item->data = byte;
        return reader->in_event ? TRIORELAY_INVALID : TRIORELAY_DATA;
    }
    if (!reader->in_event) {
        reader->code = byte;
        reader->in_event = 1;
        return TRIORELAY_NOTHING;
    }
    reader->in_event = 0;
    item->id = reader->code;
    item->data = byte;
    return TRIORELAY_EVENT;
}

/* -- messages ---------------------------------------------------------------------------------------------------------- */

enum { TRIORELAY_CRC_SIZE = 4 };

/* CRC-32 as in zlib, PNG and Ethernet: reflected polynomial 0xEDB88320. Half a byte a step needs a table of 64 bytes only. */
static inline uint32_t triorelay_crc32_step(uint32_t crc, uint8_t byte)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    crc ^= byte;
    crc = (crc >> 4) ^ table[crc & 15];
    return (crc >> 4) ^ table[crc & 15];
}

/* Returns the CRC-32 of `data`. */
static inline uint32_t triorelay_crc32(const void *data, size_t size)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) crc = triorelay_crc32_step(crc, ((const uint8_t *)data)[i]);
    return ~crc;
}

/* The most bytes that COBS makes of `size` bytes: one more for each 254 that it begins, and at least one. */
#define TRIORELAY_COBS_SIZE(size) ((size_t)(size) + (size_t)(size) / 254 + 1)

/* Where a COBS encoding stands. Begin with {.out = your buffer, .at = 1}. */
struct triorelay_cobs {
    uint8_t *out;
    size_t at;   /* where the next byte goes */
    size_t code; /* where the length of the block that is being filled goes */
};

static inline void triorelay_cobs_put(struct triorelay_cobs *cobs, uint8_t byte)
{
    if (cobs->at - cobs->code == 255) { /* the block is full, and more follows */
        cobs->out[cobs->code] = 255;
        cobs->code = cobs->at++;
    }
    if (byte != 0) {
        cobs->out[cobs->at++] = byte;
    } else {
        cobs->out[cobs->code] = (uint8_t)(cobs->at - cobs->code);
        cobs->code = cobs->at++;
    }
}

static inline size_t triorelay_cobs_end(struct triorelay_cobs *cobs)
{
    cobs->out[cobs->code] = (uint8_t)(cobs->at - cobs->code);
    return cobs->at;
}

/*
 * Writes `size` bytes of `data`, COBS-encoded and so without a 0, to `out`, which has room for TRIORELAY_COBS_SIZE(size)
 * bytes and does not overlap `data`. Returns the size.
 */
static inline size_t triorelay_cobs_encode(uint8_t *out, const void *data, size_t size)
{
    struct triorelay_cobs cobs = {out, 1, 0};
    for (size_t i = 0; i < size; i++) triorelay_cobs_put(&cobs, ((const uint8_t *)data)[i]);
    return triorelay_cobs_end(&cobs);
}

/*
 * Decodes the COBS block `data`, which holds no 0, to `out`, which has room for `size` bytes and may be `data` itself.
 * Returns the decoded size, or -1 where the block is cut.
 */
static inline ptrdiff_t triorelay_cobs_decode(uint8_t *out, const uint8_t *data, size_t size)
{
    size_t to = 0;
    for (size_t from = 0; from < size;) {
        size_t length = data[from++];
        if (length == 0 || length - 1 > size - from) return -1;
        for (size_t i = 1; i < length; i++) out[to++] = data[from++];
        if (length < 255 && from < size) out[to++] = 0;
    }
    return (ptrdiff_t)to;
}

/* The most data bytes that a message with this payload has: the payload and its CRC, COBS-encoded, and the 0 that ends it. */
#define TRIORELAY_MESSAGE_SIZE(payload_size) (TRIORELAY_COBS_SIZE((size_t)(payload_size) + TRIORELAY_CRC_SIZE) + 1)

/*
 * Writes the data bytes of a message to `out`, which has room for TRIORELAY_MESSAGE_SIZE(size) bytes and does not overlap
 * `payload`. Returns the size. Before its first message to a peer, a sender sends a single data byte 0.
 */
static inline size_t triorelay_message(uint8_t *out, const void *payload, size_t size)
{
    struct triorelay_cobs cobs = {out, 1, 0};
    uint32_t crc = triorelay_crc32(payload, size);
    for (size_t i = 0; i < size; i++) triorelay_cobs_put(&cobs, ((const uint8_t *)payload)[i]);
    for (int shift = 24; shift >= 0; shift -= 8) triorelay_cobs_put(&cobs, (uint8_t)(crc >> shift));
    size = triorelay_cobs_end(&cobs);
    out[size++] = 0;
    return size;
}

/*
 * Puts the messages of one source together. Begin with {.block = your buffer, .capacity = its size}; a buffer of
 * TRIORELAY_MESSAGE_SIZE(n) bytes takes every payload of up to n bytes.
 */
struct triorelay_messages {
    uint8_t *block;
    size_t capacity;
    size_t size;      /* bytes of the block so far; more than `capacity` where it is too long */
    size_t discarded; /* blocks thrown away: cut, corrupt or too long */
};

/*
 * Takes the next data byte of the source. Returns the size of the payload that it completes, which is then at the start of
 * `block` until the next call, or -1 where it completes none. Forget what is unfinished (`size = 0`) when the source leaves.
 */
static inline ptrdiff_t triorelay_read_message(struct triorelay_messages *messages, uint8_t byte)
{
    size_t size = messages->size;
    if (byte != 0) {
        if (size < messages->capacity) messages->block[size] = byte;
        if (size <= messages->capacity) messages->size++;
        return -1;
    }
    messages->size = 0;
    if (size == 0) return -1; /* an empty block means nothing */
    uint8_t *block = messages->block;
    ptrdiff_t plain = size > messages->capacity ? -1 : triorelay_cobs_decode(block, block, size);
    if (plain >= TRIORELAY_CRC_SIZE) {
        size = (size_t)plain - TRIORELAY_CRC_SIZE;
        const uint8_t *crc = block + size;
        uint32_t sent = (uint32_t)crc[0] << 24 | (uint32_t)crc[1] << 16 | (uint32_t)crc[2] << 8 | crc[3];
        if (triorelay_crc32(block, size) == sent) return (ptrdiff_t)size;
    }
    messages->discarded++;
    return -1;
}

/* -- calls ------------------------------------------------------------------------------------------------------------- */

enum triorelay_call_kind { TRIORELAY_CALL = 4, TRIORELAY_REPLY = 5, TRIORELAY_FAIL = 6, TRIORELAY_CANCEL = 7 };

/* The first byte after the header of a FAIL; UTF-8 text follows. */
enum triorelay_fail_reason {
    TRIORELAY_NOT_SERVED = 1,
    TRIORELAY_FAILED = 2,
    TRIORELAY_TOO_MANY = 3,
    TRIORELAY_ENDED = 4
};

enum { TRIORELAY_CALL_HEADER_SIZE = 5 };

/*
 * Writes the header of a call's message to `out`, which has room for 5 bytes, and returns 5. The payload of the message is
 * this header and what belongs to the kind: the payload of a CALL or REPLY, reason and text of a FAIL, nothing for a CANCEL.
 */
static inline size_t triorelay_call_header(uint8_t *out, enum triorelay_call_kind kind, uint32_t number)
{
    out[0] = (uint8_t)kind;
    for (int i = 0; i < 4; i++) out[1 + i] = (uint8_t)(number >> (24 - 8 * i));
    return TRIORELAY_CALL_HEADER_SIZE;
}

/* What a message says about a call. `payload` points into the message: of a FAIL it is the text. */
struct triorelay_call {
    enum triorelay_call_kind kind;
    uint32_t number;
    uint8_t reason; /* of a FAIL; else 0 */
    const uint8_t *payload;
    size_t size;
};

/* Reads the payload of a message into `call`. Returns 1, or 0 if the message is not one of a call. */
static inline int triorelay_read_call(const uint8_t *message, size_t size, struct triorelay_call *call)
{
    if (size < TRIORELAY_CALL_HEADER_SIZE || message[0] < TRIORELAY_CALL || message[0] > TRIORELAY_CANCEL) return 0;
    call->kind = (enum triorelay_call_kind)message[0];
    call->number = 0;
    for (int i = 1; i <= 4; i++) call->number = call->number << 8 | message[i];
    call->reason = 0;
    call->payload = message + TRIORELAY_CALL_HEADER_SIZE;
    call->size = size - TRIORELAY_CALL_HEADER_SIZE;
    if (call->kind == TRIORELAY_CANCEL) return call->size == 0;
    if (call->kind != TRIORELAY_FAIL) return 1;
    if (call->size == 0) return 0;
    call->reason = *call->payload++;
    call->size--;
    return 1;
}

#endif
