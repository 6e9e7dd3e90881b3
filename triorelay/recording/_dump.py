"""A recording in the plainest form that MCAP has, without any package: no chunks, no index, no messages.

A relay that writes its last frames must not need another package, nor much time. Every tool reads the result like a
recording; `record --last` makes a complete one.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping

from ._layout import ABOUT, OCTETS, PROFILE, Kind, metadata, topic
from ._runs import Run

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _CHANNEL, _MESSAGE, _METADATA, _DATA_END = 1, 2, 4, 5, 12, 15
_MESSAGE_HEAD = struct.Struct("<BQHIQQ")
_MESSAGE_FIELDS = _MESSAGE_HEAD.size - 9


def dump(runs: Iterable[Run], about: Mapping[str, str], library: str) -> Iterator[bytes]:
    """Yield the bytes of the file.

    Args:
        runs: what to write, oldest first.
        about: what to say of the recording.
        library: the name and version of the program that writes.
    """
    yield _MAGIC + _record(_HEADER, _text(PROFILE) + _text(library)) + _record(_METADATA, _text(ABOUT) + _map(about))
    channels: dict[tuple[int, int], list[int]] = {}
    for time, source, destination, data in runs:
        channel = channels.get((source, destination))
        if channel is None:
            channel = channels[source, destination] = [len(channels) + 1, 0]
            yield _channel(channel[0], source, destination)
        channel[1] += 1
        size = _MESSAGE_FIELDS + len(data)
        yield _MESSAGE_HEAD.pack(_MESSAGE, size, channel[0], channel[1] & 0xFFFFFFFF, time, time) + data
    yield _record(_DATA_END, bytes(4)) + _record(_FOOTER, bytes(20)) + _MAGIC


def _channel(number: int, source: int, destination: int) -> bytes:
    names = _text(topic(source, destination, Kind.FRAMES)) + _text(OCTETS)
    return _record(_CHANNEL, struct.pack("<HH", number, 0) + names + _map(metadata(source, destination, Kind.FRAMES)))


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return struct.pack("<I", len(data)) + data


def _map(values: Mapping[str, str]) -> bytes:
    data = b"".join(_text(key) + _text(value) for key, value in values.items())
    return struct.pack("<I", len(data)) + data
