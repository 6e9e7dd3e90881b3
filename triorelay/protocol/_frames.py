"""Chunks of frames.

A frame is two bytes: an id and a data byte. All work here is on whole chunks of frames, because a byte at a time costs
Python some thirty nanoseconds and a slice, a translation or a comparison a hundredth of that:

1. A chunk for one destination is the common case. Its every second byte is compared with one byte repeated.
2. A chunk for many destinations is regrouped: one piece a destination, in order of first appearance, each piece in
   the order in which its frames came. Order is promised per pair only, so pieces may overtake one another.
3. What is left over of an odd chunk is the caller's to keep.
4. numpy does large chunks several times faster. It is there only once `enable_numpy` was called, because its import
   takes longer than a command that needs none of this; results are the same with it and without.

Measured on 32,768 frames (Python 3.11, one core of a Xeon with AVX-512), in microseconds:

    regroup, one destination     21, with numpy  12      source_counts, one source      1, with numpy  1
    regroup, 16 destinations   1100, with numpy 115      source_counts, 16 sources    380, with numpy 37
    regroup, 255 destinations  1270, with numpy 165      source_counts, 255 sources   990, with numpy 45
"""

import os
from collections import Counter
from collections.abc import Callable
from itertools import compress
from operator import ne

LARGE_CHUNK = 65536
"""Bytes read from one client at a time: 32,768 frames. Larger reads gain nothing measurable and cost memory."""

_NUMPY_FROM = 2048
"""Bytes from which numpy is quicker whatever a chunk holds; below, its dozen calls cost more than the loop."""

_NUMPY_UP_TO = 131072
"""Bytes up to which a frame's place in its chunk fits into the 16 bits that the sort has for it."""

_BY_DELETING = 32
"""Sources counted by deleting them one after the other; for more of them a count byte by byte is quicker."""

_EVERY_BYTE = bytes(range(256))

Pieces = list[tuple[int, bytearray]]
Counts = list[tuple[int, int]]

_regroup_by_numpy: Callable[[bytes | bytearray, int], Pieces] | None = None
_count_by_numpy: Callable[[bytes | bytearray], Counts] | None = None


def enable_numpy() -> bool:
    """Use numpy for large chunks from now on, in the whole process; return whether it is used.

    It is not where it is not installed, or where TRIORELAY_NUMPY is 0 in the environment. The first call takes some
    50 ms.
    """
    global _regroup_by_numpy, _count_by_numpy
    if os.environ.get("TRIORELAY_NUMPY") == "0":
        return False
    try:
        from . import _frames_numpy
    except ImportError:
        return False
    _regroup_by_numpy, _count_by_numpy = _frames_numpy.regroup, _frames_numpy.source_counts
    return True


def address_frames(id: int, data: bytes | bytearray | memoryview) -> bytearray:
    """Return one frame a byte of `data`, all with `id`: what a client sends to `id`, or receives from it."""
    frames = bytearray(2 * len(data))
    frames[0::2] = bytes((id,)) * len(data)
    frames[1::2] = data
    return frames


def regroup(frames: bytes | bytearray, source: int) -> Pieces:
    """Return (destination, frames as that destination receives them) for each destination in whole `frames`.

    Args:
        frames: frames as the client `source` sent them; an even number of bytes.
        source: the id that replaces each destination.
    """
    if _regroup_by_numpy is not None and _NUMPY_FROM <= len(frames) <= _NUMPY_UP_TO:
        return _regroup_by_numpy(frames, source)
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
    if _count_by_numpy is not None and 2 * len(ids) >= _NUMPY_FROM:
        return _count_by_numpy(ids)
    found: Counts = []
    for _ in range(_BY_DELETING):
        others = ids.translate(None, bytes(ids[:1]))
        found.append((ids[0], len(ids) - len(others)))
        if not others:
            return found
        ids = others
    return found + list(Counter(ids).items())
