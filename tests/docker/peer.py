"""A client for the containers of these tests: floods, counts what comes, or watches clients come and go.

    peer.py flood ADDRESS ID DESTINATION     until SIGTERM, or until the relay hangs up
    peer.py sink ADDRESS ID                  until the relay hangs up
    peer.py watch PATH                       for ever

1. It runs from the image under test, but knows nothing of triorelay: what it counts is what the socket gave it.
2. ADDRESS is a path (the client binds its id beside it, as in the article) or HOST:PORT (the client says hello).
3. A flood's data bytes count from 0 to 255 and begin again: a sink sees what is missing or out of order.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable

CYCLE = bytes(range(256))
# A sink says how far it is each time that this many frames have come.
MARK = 1 << 20
JOINED, LEFT = 1, 2


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def connect(address: str, name: str) -> socket.socket:
    if "/" in address:
        connection = socket.socket(socket.AF_UNIX)
        own = os.path.join(os.path.dirname(address), name)
        if os.path.exists(own):
            os.unlink(own)
        connection.bind(own)
        connection.connect(address)
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(name.encode() + b"\x80")
    return connection


def flood(address: str, name: str, destination: str) -> None:
    connection = connect(address, name)
    chunk = b"".join(destination.encode() + CYCLE[data : data + 1] for data in range(256)) * 64
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    sent = 0
    say("flooding")
    try:
        while not asked_to_stop:
            connection.sendall(chunk)
            sent += len(chunk) // 2
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    except OSError as error:
        say(f"ended: {error}")
    say(json.dumps({"sent": sent}))


def sink(address: str, name: str) -> None:
    connection = connect(address, name)
    received = gaps = 0
    expected = 0
    sources: set[int] = set()
    rest = b""
    say("listening")
    while True:
        try:
            read = connection.recv(1 << 18)
        except OSError as error:
            say(f"ended: {error}")
            break
        if not read:
            break
        read = rest + read
        whole = len(read) & ~1
        frames, rest = read[:whole], read[whole:]
        sources.update(frames[0::2])
        data = frames[1::2]
        if data != (CYCLE * (len(data) // 256 + 2))[expected : expected + len(data)]:
            gaps += 1
        if data:
            expected = (data[-1] + 1) % 256
        for mark in range(received // MARK + 1, (received + len(data)) // MARK + 1):
            say(f"mark {mark}")
        received += len(data)
    result = {"received": received, "gaps": gaps, "half": len(rest), "sources": bytes(sources).decode()}
    say(json.dumps(result))


def watch(path: str) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(b"\0\x82")
    reader = connection.makefile("rb")
    reader.read(2)
    while pair := reader.read(4):
        code, argument = pair[1], pair[3]
        if code in {JOINED, LEFT}:
            say(f"{'JOINED' if code == JOINED else 'LEFT'} {chr(argument)}")


roles: dict[str, Callable[..., None]] = {"flood": flood, "sink": sink, "watch": watch}
roles[sys.argv[1]](*sys.argv[2:])
