"""Run by MicroPython: docs/examples/micropython/triorelay_client.py writes and reads what the vectors say.

micropython_vectors.py MODULES VECTORS
"""

import json
import sys
from binascii import hexlify, unhexlify

sys.path.insert(0, sys.argv[1])
import triorelay_client as client

with open(sys.argv[2]) as file:
    vectors = json.load(file)

checked = 0


def check(found, expected):
    global checked
    checked += 1
    if found != expected:
        print("found", found, "expected", expected)
        sys.exit(1)


def text(data):
    return hexlify(data).decode()


def in_pieces(reader, data, size):
    return [item for at in range(0, len(data), size) for item in reader.feed(data[at : at + size])]


def joined(items):
    found = []
    for kind, about, what in items:
        if kind == "event":
            found.append({"event": about, "argument": what})
        elif found and found[-1].get("source") == about:
            found[-1]["data"] += text(what)
        else:
            found.append({"source": about, "data": text(what)})
    return found


def read_frames(data, size):
    try:
        return joined(in_pieces(client.FrameReader(), data, size))
    except ValueError:
        return None


for v in vectors["hello"]:
    check(text(client.hello(v["id"], v["options"], unhexlify(v["token"]))), v["bytes"])
for v in vectors["frames"]:
    check(text(client.frames(v["id"], unhexlify(v["data"]))), v["bytes"])
for v in vectors["requests"]:
    check(text(client.request(v["code"], v["argument"])), v["bytes"])
for v in vectors["messages"]:
    check(text(client.message(unhexlify(v["payload"]))), v["data"])
for v in vectors["calls"]:
    payload = unhexlify(v["payload"])
    check(text(client.call_message(v["kind"], v["number"], payload, v["reason"])), v["message"])
    check(client.read_call(unhexlify(v["message"])), (v["kind"], v["number"], payload, v["reason"]))
for message in vectors["no_calls"]:
    check(client.read_call(unhexlify(message)), None)
for size in (1, 10000):
    for v in vectors["received"]:
        check(read_frames(unhexlify(v["bytes"]), size), v["items"])
    for v in vectors["message_reading"]:
        reader = client.MessageReader()
        check([text(payload) for payload in in_pieces(reader, unhexlify(v["data"]), size)], v["payloads"])
        check(reader.discarded, v["discarded"])

reader = client.MessageReader(8)
data = client.message(b"fits") + client.message(b"x" * 1000) + client.message(b"fits too")
check((reader.feed(data), reader.discarded), ([b"fits", b"fits too"], 1))
print("checked", checked, "on", sys.implementation.name)
