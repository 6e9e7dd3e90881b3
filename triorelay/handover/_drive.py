"""The conversation over a real connection: each end blocks, within one bound of time.

Both ends block on purpose. The old relay's state must not change during the transfer, so its loop blocks from the offer
to `go`; the successor has nothing else to do yet. `SECONDS` bounds this time, in which the relay reads and writes no
client. On the reference machine it takes some tens of milliseconds.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ._conversation import (
    LONGEST_STATE,
    MOST_DESCRIPTORS,
    Failure,
    Go,
    Greeting,
    HandoverFailed,
    Offer,
    PredecessorDied,
    Ready,
    W,
    Word,
    Words,
    encode,
)
from ._descriptors import receive, send

SECONDS = 5.0
"""Seconds after which the old relay gives up and continues."""
PATIENCE = 1.0
"""Seconds that the successor waits longer than the old relay, and for the pipe of one that died to close."""
CHUNK = 1 << 18


def _tick(sock: socket.socket, end: float) -> None:
    """Give the next call on `sock` what is left of the time until `end`."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def hand_over(
    sock: socket.socket,
    words: Words,
    version: int,
    state: bytes,
    descriptors: Sequence[int],
    before_go: Callable[[], None] = lambda: None,
) -> None:
    """Offer `state` to the successor that has greeted over `sock`; return once it serves, and nothing here may
    continue.

    Args:
        sock: the connection; it has a time-out afterwards.
        words: what the successor said so far.
        version: of the state.
        state: at least a byte for every 253 descriptors.
        descriptors: they stay open here. The first one is the read end of this process's pipe of life.
        before_go: called when the successor is ready, just before `go`.

    Raises:
        HandoverFailed: the successor does not serve; the caller tells it so, and continues as if nothing had happened.
    """
    end = time.monotonic() + SECONDS
    try:
        _tick(sock, end)
        sock.sendall(encode(Offer(version, len(state), len(descriptors))))
        _tick(sock, end)
        send(sock, state, descriptors)
        ready = None
        while ready is None:
            _tick(sock, end)
            ready = words.take(sock.recv(CHUNK), Ready)
        before_go()
        _tick(sock, end)
        sock.sendall(encode(Go()))
    except TimeoutError:
        raise HandoverFailed(f"the successor was not ready after {SECONDS:g} s") from None
    except OSError as error:
        with suppress(OSError):  # what it said before it left says more than the error of a failed write
            sock.settimeout(0)
            if said := sock.recv(CHUNK):
                words.take(said, Ready)
        raise HandoverFailed(f"the successor left: {error.strerror or error}") from None


class Inheritance:
    """What a successor gets from the old relay, until it serves. It owns the connection and every descriptor.

    Attributes:
        state: as it was sent.
        descriptors: those that came with it, without the pipe. Code that uses one takes it out of the list.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.state: bytes = b""
        self.descriptors: list[int] = []
        self._sock = sock
        self._words = Words("the old relay")
        self._life: int | None = None
        self._end = time.monotonic() + SECONDS + PATIENCE

    def request(self, versions: list[int], release: str) -> None:
        """Ask for everything, and receive it.

        Raises:
            HandoverFailed: the old relay continues, and says why.
            PredecessorDied: it is gone, and its state did not arrive.
        """
        self._say(Greeting(versions, release))
        offer = self._hear(Offer)
        size, count = offer.size, offer.descriptors
        if not (0 < size <= LONGEST_STATE and 0 < count <= MOST_DESCRIPTORS):
            raise HandoverFailed(f"the state is too large: {size} bytes, {count} descriptors")
        arrived = self._words.rest
        while len(arrived) < size or self._life is None or len(self.descriptors) < count - 1:
            arrived += self._receive()
        if len(self.descriptors) >= count:
            raise HandoverFailed("more descriptors arrived than were offered")
        self.state = bytes(arrived[:size])
        del arrived[:size]

    def confirm(self) -> None:
        """Say that all is ready, and wait until the old relay is gone; then this process serves.

        Raises:
            HandoverFailed: the old relay continues, and this process must end without touching what it got.
        """
        self._end = time.monotonic() + SECONDS + PATIENCE
        self._say(Ready())
        with suppress(PredecessorDied):  # all that it had has arrived
            self._hear(Go)

    def refuse(self, reason: str) -> None:
        """Tell the old relay to continue, with the reason."""
        self._end = time.monotonic() + PATIENCE
        self._say(Failure(reason))

    def close(self) -> None:
        """Close the connection, the pipe and the descriptors that were not taken."""
        self._sock.close()
        for descriptor in self.descriptors if self._life is None else (self._life, *self.descriptors):
            os.close(descriptor)

    def _say(self, word: Word) -> None:
        with suppress(OSError):  # the old relay may have refused without having read, or have died; reading tells
            _tick(self._sock, self._end)
            self._sock.sendall(encode(word))

    def _hear(self, expected: type[W]) -> W:
        while (word := self._words.take(self._receive(), expected)) is None:
            pass
        return word

    def _receive(self) -> bytes:
        """Return what arrives next; descriptors that come with it are kept."""
        try:
            _tick(self._sock, self._end)
            data, descriptors = receive(self._sock, CHUNK)
        except TimeoutError:
            raise HandoverFailed("the old relay does not answer") from None
        except ConnectionError:
            data, descriptors = b"", []
        except OSError as error:
            raise HandoverFailed(str(error)) from None
        self.descriptors += descriptors
        if self._life is None and self.descriptors:
            self._life = self.descriptors.pop(0)
        if data:
            return data
        if self._life is not None and _is_open(self._life):
            raise HandoverFailed("the old relay gave up")
        raise PredecessorDied


def take_over(sock: socket.socket, versions: list[int], release: str) -> Inheritance:
    """Ask the old relay at the other end of `sock` for everything; the caller closes what is returned.

    Raises:
        HandoverFailed: it continues, and says why.
        PredecessorDied: it is gone, and its state did not arrive.

    Where it raises, `sock` and all that came are closed.
    """
    inheritance = Inheritance(sock)
    try:
        inheritance.request(versions, release)
    except BaseException:
        inheritance.close()
        raise
    return inheritance


def _is_open(pipe: int) -> bool:
    """Return whether the other end is still open; a process that has just died closes its descriptors one by one."""
    poll = select.poll()
    poll.register(pipe, 0)  # POLLHUP is always reported
    return not poll.poll(PATIENCE * 1000)
