"""Frames as they were routed: runs of one pair, and their bytes between a relay and a program that records.

An entry is a head of 14 bytes, and data: time (8 bytes, nanoseconds since 1970), source, destination, and a count of 4
bytes, all big-endian. With a source from 1 to 255 the count is that of the data bytes that follow, one for each frame.
Source 0, which no routed frame has, says that so many frames are missing here; a count of 0 marks the beginning.
"""

import struct
from typing import NamedTuple

from ..protocol import RELAY

_HEAD = struct.Struct(">QBBI")
_MOST = 0xFFFFFFFF
RUN_LIMIT = 1 << 20
"""Data bytes of a run: a bound for a reader. A relay reads 64 KiB at a time, so its runs are much shorter."""


class Run(NamedTuple):
    """Frames that were routed in one step, from one client to another.

    Attributes:
        time: when, in nanoseconds since 1970.
        source: the id of the sender, 1 to 255.
        destination: the id that it sent to; 0 is the relay itself.
        data: the data bytes, one for each frame.
    """

    time: int
    source: int
    destination: int
    data: bytes


class Lost(NamedTuple):
    """Frames that were routed here and not kept.

    Attributes:
        time: when this was noticed, in nanoseconds since 1970.
        frames: how many.
    """

    time: int
    frames: int


Entry = Run | Lost


def pack_run(time: int, source: int, destination: int, data: bytes) -> bytes:
    """Return the bytes of a run."""
    return _HEAD.pack(time, source, destination, len(data)) + data


def pack_lost(time: int, frames: int) -> bytes:
    """Return the bytes that say that `frames` frames are missing."""
    packed = b""
    while frames > _MOST:
        packed += _HEAD.pack(time, RELAY, RELAY, _MOST)
        frames -= _MOST
    return packed + _HEAD.pack(time, RELAY, RELAY, frames)


class RunReader:
    """Splits the bytes into entries again, whatever the pieces in which they arrive."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Entry]:
        """Take what arrived, and return the entries that it completes.

        Raises:
            ValueError: these are no entries; the reader is of no more use.
        """
        data = self._rest + chunk
        entries: list[Entry] = []
        at = 0
        while len(data) - at >= _HEAD.size:
            time, source, destination, count = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size
            if source == RELAY:
                entries.append(Lost(time, count))
                at = start
                continue
            if count > RUN_LIMIT:
                raise ValueError(f"a run of {count} frames, where {RUN_LIMIT} are the most")
            if len(data) - start < count:
                break
            at = start + count
            entries.append(Run(time, source, destination, data[start:at]))
        self._rest = data[at:]
        return entries
