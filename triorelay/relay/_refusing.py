"""The last words to a client that the relay refuses."""

from contextlib import suppress

import trio

from ..protocol import Hello, Refusal
from ._connection import Connection

LINGER_SECONDS = 1.0
"""Longer than the rest of what a client sends without waiting is on its way."""
LINGER_BYTES = 65536


def answer(connection: Connection, hello: Hello, refusal: Refusal) -> None:
    """Answer a refusal, if the hello asked for an answer."""
    if hello.wants_answer:
        send(connection, bytes((hello.id, refusal)))


def send(connection: Connection, answer: bytes) -> None:
    """Send an answer to a connection that has no session."""
    # Nothing was sent before, so there is room; a client that has left gets no answer.
    with suppress(OSError):
        connection.send_nowait(answer)


async def linger(connection: Connection) -> None:
    """Discard what still comes for a moment: to close a connection with unread input would discard the answer."""
    discarded = 0
    with trio.move_on_after(LINGER_SECONDS):
        while discarded < LINGER_BYTES:
            try:
                chunk = connection.recv_nowait(4096)
            except BlockingIOError:
                await connection.wait_readable()
                continue
            except OSError:
                return
            if not chunk:
                return
            discarded += len(chunk)
            await trio.lowlevel.checkpoint()
