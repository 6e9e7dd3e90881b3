"""Whose bytes are whose, where several sessions share an id."""

from __future__ import annotations

from dataclasses import dataclass

SHARED = b"ST"
HOLDERS = 3
TAG_BITS = 5
"""Bits of a data byte that say which session of a shared id sent it; once all are used up, sessions only receive."""


@dataclass(frozen=True)
class Client:
    """One session of an id: the n-th of those that share it, else 0."""

    id: int
    number: int = 0

    @property
    def shared(self) -> bool:
        return self.id in SHARED

    @property
    def lossy(self) -> bool:
        return self.shared and self.number % HOLDERS == 0

    @property
    def sends(self) -> bool:
        return not self.number >> TAG_BITS

    def mark(self, data: bytes) -> bytes:
        """Return `data` with what tells it from that of the other sessions."""
        low = 8 - TAG_BITS
        return bytes(self.number << low | byte >> TAG_BITS for byte in data) if self.shared else data


def by_sender(source: int, data: bytearray) -> dict[Client, bytes]:
    """Part what came from `source` by the session that sent it."""
    if source not in SHARED:
        return {Client(source): bytes(data)}
    tags = [byte >> (8 - TAG_BITS) for byte in data]
    return {
        Client(source, tag): bytes(byte for byte, other in zip(data, tags, strict=True) if other == tag)
        for tag in set(tags)
    }


def is_subsequence(part: bytes, whole: bytearray) -> bool:
    rest = iter(whole)
    return all(byte in rest for byte in part)
