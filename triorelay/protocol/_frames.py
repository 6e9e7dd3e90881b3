"""Chunks of frames.

A frame is two bytes: an id and a data byte. All work here is on whole chunks of frames, because a byte at a time costs
Python some thirty nanoseconds and a slice, a translation or a comparison a hundredth of that:

1. A chunk for one destination is the common case. Its every second byte is compared with one byte repeated.
2. A chunk for many destinations is regrouped: one piece a destination, in order of first appearance, each piece in
   the order in which its frames came. Order is promised per pair only, so pieces may overtake one another.
3. The caller keeps what is left over of an odd chunk.
4. Where this is compiled, large and mixed chunks are `_grouping`'s: the same results, several times faster.

Measured on 32,768 frames (Python 3.11, one core of an EPYC 9005), in microseconds; numpy was tried too:

                                interpreted  compiled  numpy
    regroup, one destination             18       7.5    8.8
    regroup, 16 destinations           1070        36     81
    regroup, 255 destinations          1060       115    122
    runs, one source                     17       8.2
    source_counts, one source           0.7       0.7    0.7
    source_counts, 16 sources           300        17     39
    source_counts, 255 sources          860        22     45
"""

from collections import Counter
from itertools import compress
from operator import ne

from .._build import COMPILED
from . import _grouping

LARGE_CHUNK = 65536
"""Bytes read from one client at a time: 32,768 frames. Larger reads gain nothing measurable and cost memory."""

_COMPILED_FROM = 16
"""Bytes from which the compiled way is quicker; below, setting up its table of destinations costs more."""

_BY_DELETING = 32
"""Sources counted by deleting them one after the other; for more of them a count byte by byte is quicker."""

_EVERY_BYTE = bytes(range(256))

Pieces = list[tuple[int, bytes | bytearray]]
Counts = list[tuple[int, int]]


def address_frames(id: int, data: bytes | bytearray | memoryview) -> bytearray:
    """Return one frame a byte of `data`, all with `id`: what a client sends to `id`, or receives from it."""
    frames = bytearray((id,)) * (2 * len(data))  # one byte repeated is quicker than two
    frames[1::2] = data
    return frames


def regroup(frames: bytes | bytearray, source: int) -> Pieces:
    """Return (destination, frames as that destination receives them) for each destination in whole `frames`.

    Args:
        frames: frames as the client `source` sent them; an even number of bytes.
        source: the id that replaces each destination.

    A piece that is a bytearray is the caller's to change.
    """
    if COMPILED and len(frames) >= _COMPILED_FROM:
        sent = bytes(frames)
        received = _grouping.readdress(sent, source)
        return [(sent[0], received)] if received else _grouping.regroup(sent, source)
    destinations = frames[0::2]
    first = destinations[:1]
    if destinations == first * len(destinations):
        if not first:
            return []
        addressed = bytearray(frames)
        addressed[0::2] = bytes((source,)) * len(destinations)
        return [(first[0], addressed)]
    grouped = {destination: bytearray() for destination in _distinct(destinations)}
    appends = {destination: data.append for destination, data in grouped.items()}
    for destination, byte in zip(destinations, frames[1::2], strict=True):
        appends[destination](byte)
    return [(destination, address_frames(source, data)) for destination, data in grouped.items()]


def _distinct(ids: bytes | bytearray) -> list[int] | dict[int, None]:
    # In order of first appearance. Deleting all that appear from all there are takes as long for one byte as for 500.
    if len(ids) < 64:
        return dict.fromkeys(ids)
    return sorted(_EVERY_BYTE.translate(None, _EVERY_BYTE.translate(None, ids)), key=ids.index)


def runs(frames: bytes | bytearray) -> list[tuple[int, bytes]]:
    """Return (id, data) for each run of adjacent frames with one id, in order; `frames` are whole."""
    if COMPILED and len(frames) >= _COMPILED_FROM:
        return _grouping.runs(bytes(frames))
    ids = bytes(frames[0::2])
    data = bytes(frames[1::2])
    if ids == ids[:1] * len(ids):
        return [(ids[0], data)] if ids else []
    starts = [0, *compress(range(1, len(ids)), map(ne, ids, ids[1:]))]
    ends = [*starts[1:], len(ids)]
    return [(ids[start], data[start:end]) for start, end in zip(starts, ends, strict=True)]


def source_counts(ids: bytes | bytearray) -> Counts:
    """Return (id, how often) for each id among `ids`, the even bytes of a chunk of frames; in no special order."""
    if ids == ids[:1] * len(ids):
        return [(ids[0], len(ids))] if ids else []
    if COMPILED and len(ids) >= _COMPILED_FROM:
        return _grouping.source_counts(bytes(ids))
    found: Counts = []
    for _ in range(_BY_DELETING):
        others = ids.translate(None, bytes(ids[:1]))
        found.append((ids[0], len(ids) - len(others)))
        if not others:
            return found
        ids = others
    return found + list(Counter(ids).items())
