"""A client made of one blocking socket and the bytes that docs and tests agree on; nothing of triorelay is used."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from dataclasses import dataclass

PATIENCE = 60.0
"""Seconds until a test gives up on something that has to happen. Nothing waits so long unless the relay is broken."""

QUIET = 0.25
"""Seconds without room after which a sender counts as paused. Too short on a slow machine: the test proves less."""

# Codes of events, and of requests.
JOINED, LEFT, NO_ROUTE, DROPPED, DRAINING, PONG, SYNCED, FLUSHED, CLOSING = range(1, 10)
PING, LIST, FLUSH = 6, 7, 8

# Options of the hello.
NONE, ACK, EVENTS, TOKEN, SHARE, LOSSY = 0, 1, 2, 4, 8, 16


def frames(id: bytes, data: bytes) -> bytes:
    """Return one frame a byte of `data`, all to or from `id`."""
    return b"".join(id + data[at : at + 1] for at in range(len(data))) if len(data) < 64 else _many(id, data)


def _many(id: bytes, data: bytes) -> bytes:
    interleaved = bytearray(2 * len(data))
    interleaved[0::2] = id * len(data)
    interleaved[1::2] = data
    return bytes(interleaved)


def noise(size: int, seed: int) -> bytes:
    """Return bytes that no other seed gives: a data byte is too small for a sequence number."""
    return random.Random(seed).randbytes(size)


def event(code: int, argument: int | bytes = 0) -> bytes:
    """Return an event or a request as it is on the wire."""
    return bytes((0, code, 0, argument if isinstance(argument, int) else argument[0]))


def shown(data: bytes) -> str:
    """Return `data` for a message: where it is long, its two ends and its length."""
    return repr(data) if len(data) <= 80 else f"{data[:32]!r}...{data[-32:]!r} ({len(data)} bytes)"


def assert_same(received: bytes, expected: bytes) -> None:
    """Fail where the two differ, and show where."""
    if received != expected:
        same = next((at for at, pair in enumerate(zip(received, expected, strict=False)) if pair[0] != pair[1]), 0)
        raise AssertionError(f"from byte {same} on {shown(received[same:])}, not {shown(expected[same:])}")


@dataclass(eq=False)
class Client:
    """One end of a connection; every wait is bounded."""

    socket: socket.socket

    def __post_init__(self) -> None:
        self.socket.settimeout(PATIENCE)

    def send(self, *pieces: bytes) -> None:
        """Send the pieces in one write."""
        self.socket.sendall(b"".join(pieces))

    def receive(self, size: int) -> bytes:
        """Return exactly so many bytes; fewer fail the test."""
        received = b""
        while len(received) < size:
            try:
                more = self.socket.recv(min(size - len(received), 1 << 16))
            except TimeoutError:
                raise AssertionError(f"waited for {size} bytes, came only {shown(received)}") from None
            assert more, f"end of file after {shown(received)}, {size} bytes expected"
            received += more
        return received

    def expect(self, *pieces: bytes) -> None:
        """Receive exactly these bytes."""
        expected = b"".join(pieces)
        assert_same(self.receive(len(expected)), expected)

    def read_to_end(self) -> bytes:
        """Return everything up to the end of file; a reset fails the test."""
        received = b""
        while more := self.socket.recv(1 << 16):
            received += more
        return received

    def expect_end(self) -> None:
        """There is nothing more, and the connection was not reset."""
        assert self.read_to_end() == b""

    def ping(self, number: int) -> None:
        """Wait until what was sent before has been dealt with; nothing else may come before the answer."""
        self.send(event(PING, number))
        self.expect(event(PONG, number))

    def settle(self, id: bytes) -> None:
        """Wait until the relay knows this client, which got `id` without an answer: by a frame to itself."""
        self.send(id + b"?")
        self.expect(id + b"?")

    def leave(self) -> None:
        """Shut the sending side."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close without any of the courtesies; TCP sends a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send_until_blocked(self, data: bytes) -> int:
        """Send as much of `data` as fits until none is taken for a while; return how many bytes."""
        sent = 0
        self.socket.setblocking(False)
        try:
            while sent < len(data) and select.select([], [self.socket], [], QUIET)[1]:
                sent += self.socket.send(data[sent : sent + 65536])
        finally:
            self.socket.settimeout(PATIENCE)
        return sent


def exchange(sending: dict[Client, bytes], receiving: dict[Client, int]) -> dict[Client, bytes]:
    """Send to and receive from several clients at once; return what each received, exactly as much as asked for."""
    unsent = {client: memoryview(data) for client, data in sending.items() if data}
    received = {client: bytearray() for client in receiving}
    wanted = {client for client, size in receiving.items() if size}
    deadline = time.monotonic() + PATIENCE
    for client in {*unsent, *wanted}:
        client.socket.setblocking(False)
    try:
        while unsent or wanted:
            by_socket = {client.socket: client for client in {*unsent, *wanted}}
            readable, writable, _ = select.select(
                [client.socket for client in wanted], [client.socket for client in unsent], [], PATIENCE
            )
            assert time.monotonic() < deadline, {client: len(data) for client, data in received.items()}
            for client in map(by_socket.__getitem__, readable):
                more = client.socket.recv(min(receiving[client] - len(received[client]), 1 << 16))
                assert more, f"end of file after {len(received[client])} of {receiving[client]} bytes"
                received[client] += more
                if len(received[client]) == receiving[client]:
                    wanted.remove(client)
            for client in map(by_socket.__getitem__, writable):
                unsent[client] = unsent[client][client.socket.send(unsent[client][:65536]) :]
                if not unsent[client]:
                    del unsent[client]
    finally:
        for client in (*sending, *receiving):
            client.socket.settimeout(PATIENCE)
    return {client: bytes(data) for client, data in received.items()}
