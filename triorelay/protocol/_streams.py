"""A byte stream between two clients: messages that begin with a kind and a number.

The state of one stream, seen from one side; nothing here sends or waits.

1. Each side numbers the stream for itself, by chance. A message carries the number that its receiver gave, and OPEN
   also the sender's own. A message with a number that is not this stream's is discarded. So nothing of an earlier
   stream, or for an earlier session of this side, is ever taken for this one.
2. Each side says OPEN to 0 when it opens its stream, because the other one may do so before or after. The side with the
   higher id decides which two belong together: it takes the first OPEN, and answers with an OPEN to its number. Then
   both sides have opened the stream. The lower one answers an OPEN to 0 by repeating its own, until that has come.
3. Before that, nothing but OPEN is sent: what else there is to say follows as soon as both have opened it.
4. Each direction ends on its own:

       sending    open --end() or close()--> ended       open --on CLOSE--> stopped
       receiving  open --on END or CLOSE--> ended        open --close()--> stopped
       both       --on BROKEN, or the peer left, or frames were lost--> broken

5. A side that closes says CLOSE, unless both have said END by then. So after the peer's END at most one CLOSE or BROKEN
   of it can come, where this side has said END or CLOSE too; after its CLOSE or BROKEN nothing.
"""

from enum import Enum, IntEnum

from ._errors import RemoteProtocolError

NUMBER_BYTES = 4

STREAM_HEADER = 1 + NUMBER_BYTES
"""Bytes of a stream's message before its data."""

LARGEST_NUMBER = 256**NUMBER_BYTES - 1
"""A stream's number has four bytes, and is not 0."""


class StreamKind(IntEnum):
    """The first byte of a stream's message."""

    DATA = 0
    END = 1
    """I send no more."""
    CLOSE = 2
    """I send no more and read no more."""
    BROKEN = 3
    """This stream lost bytes or its owner gave up; neither direction can be used any more."""
    OPEN = 8
    """I have opened this stream. The number that I gave it follows."""


class Half(Enum):
    """How one direction of a stream stands."""

    OPEN = "open"
    ENDED = "ended"
    STOPPED = "stopped"
    BROKEN = "broken"


class StreamState:
    """What has happened to a stream so far. No stream bytes are kept here.

    Args:
        number: this side's number, from 1 to `LARGEST_NUMBER`.
        decides: whether this side has the higher id.

    Attributes:
        paired: whether both sides have opened it.
        sending: how this side's sending direction stands.
        receiving: how this side's receiving direction stands.
        peer_ended: whether the peer has said END, CLOSE or BROKEN.
        peer_finished: whether nothing more of the peer belongs to this stream.
    """

    def __init__(self, number: int, *, decides: bool) -> None:
        self.paired: bool = False
        self.sending: Half = Half.OPEN
        self.receiving: Half = Half.OPEN
        self.peer_ended: bool = False
        self.peer_finished: bool = False
        self._number = number
        self._peers_number = 0
        self._decides = decides
        self._announced = False
        self._begun = False
        self._last_said: StreamKind | None = None
        self._openings: list[bytes] = []
        self._to_say: list[StreamKind] = []

    @property
    def finished(self) -> bool:
        """Whether neither direction can carry more."""
        return self.sending is not Half.OPEN and self.receiving is not Half.OPEN

    def encode(self, kind: StreamKind, data: bytes | memoryview = b"") -> bytes:
        """Return a message of a stream that both sides have opened."""
        self._begun = True
        return _message(kind, self._peers_number) + data

    def follow(self, earlier: "StreamState") -> None:
        """Come after a stream with the same peer that is closed here, and perhaps not yet there."""
        if not earlier.paired:
            # The peer may still answer to that number.
            self._number, self._announced = earlier._number, earlier._announced

    def late_messages(self) -> list[bytes]:
        """Return the messages of which one may still come, after both sides have ended the stream."""
        kinds = () if self.peer_finished else (StreamKind.CLOSE, StreamKind.BROKEN)
        return [_message(kind, self._number) for kind in kinds]

    def take_messages(self) -> list[bytes]:
        """Return what is to be sent to the peer now, and forget it."""
        messages, self._openings = self._openings, []
        if self.paired:
            messages += map(self.encode, self._to_say)
            self._to_say.clear()
        return messages

    def announce(self) -> None:
        """Send that this side has opened the stream, once."""
        if not (self._announced or self.paired):
            self._announced = True
            self._say_open(0)

    def end(self) -> None:
        """This side sends no more."""
        if self.sending is Half.OPEN:
            self.sending = Half.ENDED
            self._say(StreamKind.END)

    def close(self, kind: StreamKind = StreamKind.CLOSE) -> None:
        """This side sends no more and reads no more; `kind` says so, CLOSE or BROKEN, where the peer has to know."""
        if self.sending is Half.OPEN:
            self.sending = Half.ENDED
        if self.receiving is Half.OPEN:
            self.receiving = Half.STOPPED
        if not (self._last_said is StreamKind.END and self.peer_ended):
            self._say(kind)

    def break_off(self) -> None:
        """Frames between the two were lost: what had not ended is broken."""
        if not self.finished:
            self._break()
            self._say(StreamKind.BROKEN)

    def part(self) -> None:
        """The peer, or the way to it, is gone: what had not ended is broken, and nothing more comes or is sent."""
        self._break()
        self.peer_ended = self.peer_finished = True
        self._last_said = StreamKind.BROKEN
        self._openings.clear()
        self._to_say.clear()

    def _break(self) -> None:
        if self.sending is Half.OPEN:
            self.sending = Half.BROKEN
        if self.receiving is Half.OPEN:
            self.receiving = Half.BROKEN

    def receive(self, message: bytes) -> bytes:
        """Take one message of the peer; return the stream bytes that it carries, often none.

        Raises:
            RemoteProtocolError: a kind that does not exist, or a message without a number.
        """
        try:
            kind = StreamKind(message[0])
        except (IndexError, ValueError):
            raise RemoteProtocolError("a stream's message begins with its kind, 0 to 3 or 8") from None
        if len(message) < STREAM_HEADER:
            raise RemoteProtocolError(f"a stream's message has a number of four bytes; a {kind.name} had none")
        number, data = int.from_bytes(message[1:STREAM_HEADER]), message[STREAM_HEADER:]
        if self.peer_finished or number not in (0, self._number):
            return b""
        if kind is StreamKind.OPEN:
            if len(data) != NUMBER_BYTES:
                raise RemoteProtocolError("an OPEN has two numbers")
            self._opened(number, int.from_bytes(data))
        elif self.paired and number:
            self._begun = True
            if kind is StreamKind.DATA:
                return data if self.receiving is Half.OPEN else b""
            self._take(kind)
        return b""

    def _opened(self, number: int, peers_number: int) -> None:
        if not self._decides:
            if number:
                self._pair(peers_number)
            elif not self._announced:
                self.announce()
            elif not self.paired:
                self._say_open(peers_number)
        elif self._begun and peers_number != self._peers_number:
            # The peer has begun its next one, so this one is over, although nothing said so.
            self._break()
            self.peer_ended = self.peer_finished = True
        else:
            # The first one, or a later one where the peer has come back since, and nothing came of the first.
            self._pair(peers_number)

    def _pair(self, peers_number: int) -> None:
        if self.paired and (peers_number == self._peers_number or not self._decides):
            return
        self._peers_number, self.paired = peers_number, True
        if self._decides:
            self._say_open(peers_number)

    def _take(self, kind: StreamKind) -> None:
        self.peer_ended = True
        self.peer_finished = kind is not StreamKind.END
        if kind is StreamKind.BROKEN:
            self._break()
            return
        if self.receiving is Half.OPEN:
            self.receiving = Half.ENDED
        if kind is StreamKind.CLOSE and self.sending is Half.OPEN:
            self.sending = Half.STOPPED

    def _say(self, kind: StreamKind) -> None:
        if self._last_said in (None, StreamKind.END):
            self._last_said = kind
            self._to_say.append(kind)

    def _say_open(self, peers_number: int) -> None:
        self._openings.append(_message(StreamKind.OPEN, peers_number) + self._number.to_bytes(NUMBER_BYTES))


def _message(kind: StreamKind, number: int) -> bytes:
    return bytes((kind,)) + number.to_bytes(NUMBER_BYTES)
