"""Clients that never stop talking, in a thread: every stream must arrive byte for byte, whatever the relay does."""

from __future__ import annotations

import random
import selectors
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.wire.client import PATIENCE, frames

if TYPE_CHECKING:
    from tests.wire.client import Client

BLOCK = 4096


class Stream:
    """The data bytes of one sender for one receiver, made anew at both ends from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._ahead = b""

    def take(self, count: int) -> bytes:
        while len(self._ahead) < count:
            self._ahead += self._chance.randbytes(BLOCK)
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken


class Talker:
    """One client that sends a stream to one other, and checks the one that it gets."""

    def __init__(self, client: Client, me: bytes, peer: bytes, *, sends: bool, burst: int) -> None:
        self.client = client
        self.sent = 0
        self.received = 0
        self.burst = burst
        self.unsent = b""
        self.sends = sends
        self._half = b""
        self._source, self._destination = peer[0], peer
        self._outgoing, self._incoming = Stream(me[0] << 8 | peer[0]), Stream(peer[0] << 8 | me[0])

    def fill(self, count: int) -> None:
        """Have `count` more frames to send."""
        self.unsent += frames(self._destination, self._outgoing.take(count))
        self.sent += count

    def write(self) -> None:
        # An odd number of bytes at a time, so that a relay is often replaced in the middle of a frame.
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.client.socket.send(self.unsent[: 2 * self.burst + 1]) :]

    def read(self) -> int:
        """Read and check; return how many frames came."""
        data = self._half + self.client.socket.recv(65536)
        assert len(data) > len(self._half), "the connection ended"
        self._half = data[len(data) & ~1 :]
        whole = data[: len(data) & ~1]
        assert set(whole[0::2]) <= {self._source}, "a frame of another source"
        assert whole[1::2] == self._incoming.take(len(whole) // 2), "other bytes than were sent, or in another order"
        self.received += len(whole) // 2
        return len(whole) // 2


class Load(threading.Thread):
    """Pairs that answer each other, and floods, until `finish`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.pairs: list[tuple[Talker, Talker]] = []
        self.floods: list[tuple[Talker, Talker]] = []
        self._stopping = threading.Event()
        self._failure: BaseException | None = None

    def finish(self) -> int:
        """Let everything that was sent arrive; return how many frames that was."""
        self._stopping.set()
        self.join(PATIENCE)
        assert not self.is_alive(), "not everything arrived"
        if self._failure is not None:
            raise self._failure
        return sum(talker.sent for pair in self.pairs + self.floods for talker in pair)

    def run(self) -> None:
        try:
            self._talk()
        except BaseException as failure:
            self._failure = failure

    def _talk(self) -> None:
        selector = selectors.DefaultSelector()
        other = {}
        for one, two in self.pairs + self.floods:
            other[one], other[two] = two, one
            for talker in (one, two):
                talker.client.socket.setblocking(False)
                selector.register(talker.client.socket, selectors.EVENT_READ, talker)
        for one, _ in self.pairs:
            one.fill(one.burst)
        while not (self._stopping.is_set() and self._all_arrived()):
            for one, _ in self.floods:
                if not self._stopping.is_set() and len(one.unsent) < 65536:
                    one.fill(32768)
            for talker in other:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if talker.unsent else 0)
                selector.modify(talker.client.socket, wanted, talker)
            for key, ready in selector.select(0.1):
                talker = key.data
                if ready & selectors.EVENT_READ:
                    came = talker.read()
                    if talker.sends and not self._stopping.is_set():
                        talker.fill(came)
                if ready & selectors.EVENT_WRITE:
                    talker.write()
        selector.close()
        for talker in other:
            talker.client.socket.settimeout(PATIENCE)

    def _all_arrived(self) -> bool:
        both = self.pairs + self.floods
        return all(one.sent == two.received and two.sent == one.received for one, two in both)
