"""Bytes that a connection did not take at once, on their way from the outbox to the writer.

A memory channel for one batch, and a writer. Both start with the first batch: a client that takes everything at once
has neither, and needs a third less memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

Batch = bytes | bytearray


def _start_no_writer() -> None:
    pass


class Batches:
    """The channel of one outbox."""

    def __init__(self) -> None:
        self._start_writer: Callable[[], None] = _start_no_writer
        self._ends: tuple[trio.MemorySendChannel[Batch], trio.MemoryReceiveChannel[Batch]] | None = None

    def send(self, batch: Batch) -> None:
        """Give `batch` to the writer, which has none."""
        self._open()[0].send_nowait(batch)

    def receive_nowait(self) -> Batch:
        """Take the batch; raise WouldBlock if there is none, EndOfChannel after `close`."""
        return self._open()[1].receive_nowait()

    def receiving(self) -> trio.MemoryReceiveChannel[Batch]:
        """Return the writer's end."""
        return self._open()[1]

    def close(self) -> None:
        """End the writer."""
        if self._ends is not None:
            self._ends[0].close()

    @contextmanager
    def written_by(self, start_writer: Callable[[], None]) -> Iterator[None]:
        """Call `start_writer` once there is a batch, if that is within the block; its nursery may be closed later."""
        self._start_writer = start_writer
        if self._ends is not None:
            start_writer()
        try:
            yield
        finally:
            self._start_writer = _start_no_writer

    def _open(self) -> tuple[trio.MemorySendChannel[Batch], trio.MemoryReceiveChannel[Batch]]:
        if self._ends is None:
            self._ends = trio.open_memory_channel[Batch](1)
            self._start_writer()
        return self._ends
