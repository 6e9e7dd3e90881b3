"""A recording as an MCAP file: https://mcap.dev/spec

1. The file begins with metadata: what was recorded, and where. Then come the channels of each pair as they appear, and
   entries in the order in which the relay routed them; at the end come the totals, and an index.
2. Entries are gathered in compressed chunks. `flush` ends the current chunk: if the file is cut off after it, by a full
   disk or a killed program, everything up to there is whole.
3. Missing frames are counted where they are missing, on a separate channel, and in the totals.
"""

from collections.abc import Mapping
from typing import IO, Protocol, cast

from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import Writer

from ._layout import ABOUT, BOOKS, LOST_SCHEMA, OCTETS, PROFILE, Kind, metadata, topic
from ._messages import PairMessages, json_object, schema_of
from ._runs import Entry, Lost


class Output(Protocol):
    """As much of a file as writing needs. All of these raise OSError if it cannot be written."""

    def write(self, data: bytes, /) -> int: ...
    def tell(self) -> int: ...
    def flush(self) -> None: ...


_ChannelKey = tuple[int, int, Kind]


class RecordingWriter:
    """Writes one recording.

    Attributes:
        frames: frames written so far.
        messages: whole messages found in them so far.
        lost: frames that are known to be missing so far.
        whole: of these frames and messages, those in chunks that the file has taken.
    """

    def __init__(self, output: Output, about: Mapping[str, str], library: str) -> None:
        """Begin the file.

        Args:
            output: where to write. The caller closes it.
            about: what to say of the recording: `relay`, `host` and the like.
            library: the name and version of the program that writes.

        Raises:
            OSError: it cannot be written. So do all methods.
        """
        self.frames: int = 0
        self.messages: int = 0
        self.lost: int = 0
        self.whole: tuple[int, int] = 0, 0
        self._output = output
        self._writer = Writer(cast("IO[bytes]", output))  # it calls nothing else
        self._channels: dict[_ChannelKey, int] = {}
        self._counts: dict[int, int] = {}
        self._pairs = PairMessages()
        self._writer.start(PROFILE, library)
        self._writer.add_metadata(ABOUT, dict(about))
        self._size = output.tell()

    def add(self, entry: Entry) -> None:
        """Write an entry, and the messages that it completes."""
        if isinstance(entry, Lost):
            if entry.frames:
                self.lost += entry.frames
                self._put((0, 0, Kind.LOST), entry.time, b'{"frames":%d}' % entry.frames)
            return
        time, source, destination, data = entry
        self.frames += len(data)
        self._put((source, destination, Kind.FRAMES), time, data)
        for payload in self._pairs.feed((source, destination), data):
            self.messages += 1
            text = json_object(payload)
            if text is None:
                self._put((source, destination, Kind.MESSAGES), time, payload)
            else:
                self._put((source, destination, Kind.JSON), time, text)

    def flush(self) -> None:
        """Write all that was added, so that a file that is cut off here holds it."""
        self._writer.flush()
        self._note_chunk()

    def finish(self) -> None:
        """End the file. What is missing in it is counted in it."""
        books = {"frames": self.frames, "messages": self.messages, "lost": self.lost}
        self.flush()
        self._writer.add_metadata(BOOKS, {name: str(count) for name, count in books.items()})
        self._writer.finish()

    def _put(self, key: _ChannelKey, time: int, data: bytes) -> None:
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = self._open(key, data)
        sequence = self._counts[channel] = self._counts.get(channel, 0) + 1
        self._writer.add_message(channel, time, data, time, sequence)
        self._note_chunk()

    def _note_chunk(self) -> None:
        """If the file has grown, it holds all that was added: nothing but whole chunks is written."""
        if self._output.tell() != self._size:
            self._size = self._output.tell()
            self.whole = self.frames, self.messages

    def _open(self, key: _ChannelKey, example: bytes) -> int:
        """Open a channel; one of JSON gets the schema of its first message, `example`."""
        name, about = topic(*key), metadata(*key)
        match key[2]:
            case Kind.LOST:
                schema = LOST_SCHEMA
            case Kind.JSON:
                schema = schema_of(example)
            case _:
                return self._writer.register_channel(name, OCTETS, 0, about)
        number = self._writer.register_schema(name, SchemaEncoding.JSONSchema, schema)
        return self._writer.register_channel(name, MessageEncoding.JSON, number, about)
