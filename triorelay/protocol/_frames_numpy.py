"""What `_frames` does for large chunks where numpy is there: the same results, several times faster.

1. A frame is one little-endian 16-bit number: the id below, the data byte above.
2. For one destination, a subtraction replaces every id: the low bytes all change by the same amount, so none borrows
   from the byte above it.
3. For many, each frame becomes a number of 32 bits: destination, place in the chunk, data, from the highest bits to
   the lowest. Sorting these groups the frames by destination and keeps their order, and no frame has to be fetched
   afterwards: its data travelled along. A plain sort of numbers is what numpy has vector instructions for (AVX2,
   AVX-512, NEON), which makes it twice as fast as a stable argsort of the destinations: 70 to 140 µs for 32,768.
"""

import numpy as np

_PLACES = np.arange(65536, dtype=np.uint32) << 8
_FIRST_KEYS = np.arange(1, 256, dtype=np.uint32) << 24


def regroup(frames: bytes | bytearray, source: int) -> list[tuple[int, bytearray]]:
    """Do what `_frames.regroup` does for 1 to 65,536 whole frames."""
    sent = np.frombuffer(frames, "<u2")
    first = frames[0]
    if not ((sent ^ first) & 0xFF).any():
        received = sent.copy()
        received -= (first - source) & 0xFFFF
        return [(first, bytearray(received.data))]
    count = len(sent)
    keys = sent.astype(np.uint32)
    data = keys >> 8
    keys <<= 24
    keys |= _PLACES[:count]
    keys |= data
    keys.sort()
    received = keys.astype("<u2")
    received <<= 8
    received |= source
    whole = memoryview(received.tobytes())
    bounds = np.concatenate(([0], keys.searchsorted(_FIRST_KEYS), [count]))
    present = (bounds[:-1] < bounds[1:]).nonzero()[0]
    # Without the destination, a key sorts by its place: the first of each group puts the groups in order.
    present = present[(keys[bounds[present]] & 0xFFFFFF).argsort()]
    starts, ends = 2 * bounds[present], 2 * bounds[present + 1]
    return [
        (destination, bytearray(whole[start:end]))
        for destination, start, end in zip(present.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ]


def source_counts(ids: bytes | bytearray) -> list[tuple[int, int]]:
    """Do what `_frames.source_counts` does."""
    counts = np.bincount(np.frombuffer(ids, np.uint8))
    present = counts.nonzero()[0]
    return list(zip(present.tolist(), counts[present].tolist(), strict=True))
