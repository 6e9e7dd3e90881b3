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
    Failure,
    Go,
    Greeting,
    HandoverFailed,
    Offer,
    Predecessor,
    PredecessorDied,
    Ready,
    Successor,
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
    words: Predecessor,
    version: int,
    state: bytes,
    descriptors: Sequence[int],
    before_go: Callable[[], None] = lambda: None,
) -> None:
    """Offer `state` to the successor that has greeted over `sock`; return once it serves, and nothing here may
    continue.

    Args:
        sock: the connection; it has a time-out afterwards.
        words: the conversation so far.
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
        word = None
        while not isinstance(word, Ready):
            _tick(sock, end)
            word = words.receive(sock.recv(CHUNK))
        before_go()
        _tick(sock, end)
        sock.sendall(encode(Go()))
    except TimeoutError:
        raise HandoverFailed(f"the successor was not ready after {SECONDS:g} s") from None
    except OSError as error:
        _hear_why(sock, words)
        raise HandoverFailed(f"the successor left: {error.strerror or error}") from None


def _hear_why(sock: socket.socket, words: Predecessor) -> None:
    """Read what a successor said before it left: that says more than the error of a failed write.

    Raises:
        HandoverFailed: with the reason that it gave.
    """
    with suppress(OSError):
        sock.settimeout(0)
        if data := sock.recv(CHUNK):
            words.receive(data)


class Inheritance:
    """What a successor got from the old relay, until it serves. It owns the connection and every descriptor.

    Attributes:
        state: as it was sent.
        descriptors: those that came with it, without the pipe. Code that uses one takes it out of the list.
    """

    def __init__(self, sock: socket.socket, words: Successor, state: bytes) -> None:
        self._sock = sock
        self._words = words
        self._life = words.descriptors.pop(0)
        self.state = state
        self.descriptors: list[int] = words.descriptors

    def confirm(self) -> None:
        """Say that all is ready, and wait until the old relay is gone; then this process serves.

        Raises:
            HandoverFailed: the old relay continues, and this process must end without touching what it got.
        """
        end = time.monotonic() + SECONDS + PATIENCE
        with suppress(OSError):  # it may have died; reading tells
            _tick(self._sock, end)
            self._sock.sendall(encode(Ready()))
        _converse(self._sock, self._words, end, self._life)

    def refuse(self, reason: str) -> None:
        """Tell the old relay to continue, with the reason."""
        with suppress(OSError):
            self._sock.settimeout(PATIENCE)
            self._sock.sendall(encode(Failure(reason)))

    def close(self) -> None:
        """Close the connection, the pipe and the descriptors that were not taken."""
        self._sock.close()
        for descriptor in (self._life, *self.descriptors):
            os.close(descriptor)
        self._life, self.descriptors = -1, []


def take_over(sock: socket.socket, versions: list[int], release: str) -> Inheritance:
    """Ask the old relay at the other end of `sock` for everything; the caller closes what is returned.

    Raises:
        HandoverFailed: it continues, and says why.
        PredecessorDied: it is gone, and its state did not arrive.

    Where it raises, `sock` and all that came are closed.
    """
    words = Successor()
    end = time.monotonic() + SECONDS + PATIENCE
    try:
        with suppress(OSError):  # it may refuse without having read; reading tells
            _tick(sock, end)
            sock.sendall(encode(Greeting(versions, release)))
        state = _converse(sock, words, end, None)
        if words.descriptors:
            return Inheritance(sock, words, state)
        raise PredecessorDied
    except BaseException:
        sock.close()
        for descriptor in words.descriptors:
            os.close(descriptor)
        raise


def _converse(sock: socket.socket, words: Successor, end: float, life: int | None) -> bytes:
    """Receive until the conversation has come to its next point; return what that brought."""
    while True:
        try:
            _tick(sock, end)
            data, descriptors = receive(sock, CHUNK)
        except TimeoutError:
            raise HandoverFailed("the old relay does not answer") from None
        except ConnectionError:
            data, descriptors = b"", []
        except OSError as error:
            raise HandoverFailed(str(error)) from None
        if not data:
            pipe = life if life is not None else next(iter(words.descriptors), -1)
            words.ended(predecessor_lives=pipe >= 0 and _is_open(pipe))
            return b""
        result = words.receive(data, descriptors)
        if result is not None:
            return result


def _is_open(pipe: int) -> bool:
    """Return whether the other end is still open; a process that has just died closes its descriptors one by one."""
    poll = select.poll()
    poll.register(pipe, 0)  # POLLHUP is always reported
    return not poll.poll(PATIENCE * 1000)
