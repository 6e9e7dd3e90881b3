"""The entries of a recording, in the order in which the relay routed them.

1. The file is read from its beginning to its end, so one that is cut off gives everything that is whole in it.
2. A file is not trusted: each record and each chunk has a limit, and checksums are checked. A record that does not fit
   ends the reading, as the end of a cut file does.
"""

import struct
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import zstandard
from mcap.exceptions import InvalidMagic, McapError
from mcap.records import Channel, Chunk, Footer, Header, Message, Metadata
from mcap.stream_reader import StreamReader, breakup_chunk

from ._layout import ABOUT, PROFILE, Kind
from ._runs import Entry, Lost, Run

RECORD_LIMIT = 64 << 20
"""Bytes of a record, and of a chunk when it is unpacked. A recording's chunks have one to two MiB."""
LZ4_RATIO = 255
"""The most that LZ4 can make of a byte."""

_DAMAGE = (McapError, ValueError, LookupError, ArithmeticError, RuntimeError, struct.error, zstandard.ZstdError)
"""The exceptions of the library for bytes that are not MCAP."""


class NoRecording(ValueError):
    """The file is no recording of a relay. The message completes `FILE is …`."""


class _LostFrames(msgspec.Struct):
    frames: int


class RecordingReader:
    """Reads one recording.

    Attributes:
        about: its metadata, once `entries` has begun to yield.
        whole: whether its end was reached; False while it is read, and where it is cut off or damaged.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Look at the beginning of the file, which the caller closes.

        Raises:
            NoRecording: it is none.
            OSError: it cannot be read. So does `entries`.
        """
        self.about: dict[str, str] = {}
        self.whole: bool = False
        self._channels: dict[int, tuple[Kind, int, int]] = {}
        self._records: Iterator[Any] = StreamReader(
            file, emit_chunks=True, validate_crcs=True, record_size_limit=RECORD_LIMIT
        ).records
        try:
            header = next(self._records, None)
        except InvalidMagic:
            raise NoRecording("no recording: it is no MCAP file") from None
        except _DAMAGE:
            header = None
        if not isinstance(header, Header):
            raise NoRecording("no recording: it ends before it has begun")
        if header.profile != PROFILE:
            raise NoRecording("an MCAP file, but no recording of a relay")

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, each once. It can be called once."""
        try:
            for record in self._records:
                if isinstance(record, Chunk):
                    yield from self._unpack(record)
                elif isinstance(record, Footer):
                    self.whole = True
                else:
                    yield from self._read(record)
        except _DAMAGE:
            # The magic bytes after the footer may be cut off too.
            self.whole = False

    def _unpack(self, chunk: Chunk) -> Iterator[Entry]:
        if _unpacked_size(chunk) > RECORD_LIMIT:
            raise ValueError("a chunk over the limit")
        for record in breakup_chunk(chunk, validate_crc=True):
            yield from self._read(record)

    def _read(self, record: object) -> Iterator[Entry]:
        match record:
            case Metadata(name=name, metadata=facts) if name == ABOUT:
                self.about = facts
            case Channel():
                self._channels[record.id] = _meaning(record)
            case Message():
                kind, source, destination = self._channels[record.channel_id]
                if kind is Kind.FRAMES:
                    yield Run(record.log_time, source, destination, record.data)
                elif kind is Kind.LOST:
                    yield Lost(record.log_time, msgspec.json.decode(record.data, type=_LostFrames).frames)


def _unpacked_size(chunk: Chunk) -> int:
    """Return how large a chunk may become; what it says itself need not be so."""
    match chunk.compression:
        case "zstd":
            return max(chunk.uncompressed_size, zstandard.frame_content_size(chunk.data))
        case "lz4":
            return max(chunk.uncompressed_size, LZ4_RATIO * len(chunk.data))
    return len(chunk.data)


def _meaning(channel: Channel) -> tuple[Kind, int, int]:
    kind = Kind(channel.metadata["kind"])
    if kind is Kind.LOST:
        return kind, 0, 0
    source, destination = int(channel.metadata["source"]), int(channel.metadata["destination"])
    if not (1 <= source <= 255 and 0 <= destination <= 255):
        raise ValueError("a channel of no pair")
    return kind, source, destination
