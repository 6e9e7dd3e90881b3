"""Ways in which a byte stream may arrive. None of them may change what a reader makes of it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return `data` in pieces, cut at `places`; a place named twice gives an empty piece."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def every_cut_in_two(data: bytes) -> list[list[bytes]]:
    return [cut(data, [place]) for place in range(len(data) + 1)]


cuts = st.lists(st.integers(0, 1 << 16), max_size=8)
