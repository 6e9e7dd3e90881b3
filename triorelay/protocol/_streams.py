"""A byte stream between two clients: messages whose first byte is their kind.

The state of one stream, seen from one side. Each direction ends on its own:

    sending    open --end()--> ended        open --on STOP--> stopped
    receiving  open --on END--> ended       open --stop()--> stopped
    both       --on BROKEN, or the peer left, or frames were lost--> broken

Streams between the same two clients follow one another, and no mark begins a stream. The end separates them: each side
sends exactly one END or BROKEN on its stream, also after the peer stopped it. What comes after the peer's END or BROKEN
belongs to the next stream.
"""

from enum import Enum, IntEnum

from ._errors import RemoteProtocolError


class StreamKind(IntEnum):
    """The first byte of a stream's message."""

    DATA = 0
    END = 1
    """I send no more."""
    STOP = 2
    """I read no more."""
    BROKEN = 3
    """This stream lost bytes or its owner gave up; neither direction can be used any more."""


class Half(Enum):
    """How one direction of a stream stands."""

    OPEN = "open"
    ENDED = "ended"
    STOPPED = "stopped"
    BROKEN = "broken"


class StreamState:
    """What has happened to a stream so far. No bytes are kept here.

    Attributes:
        sending: how this side's sending direction stands.
        receiving: how this side's receiving direction stands.
        peer_finished: whether the peer's END or BROKEN has come, so that nothing more belongs to this stream.
    """

    def __init__(self) -> None:
        self.sending: Half = Half.OPEN
        self.receiving: Half = Half.OPEN
        self.peer_finished: bool = False

    @property
    def finished(self) -> bool:
        """Whether neither direction can carry more."""
        return self.sending is not Half.OPEN and self.receiving is not Half.OPEN

    def end(self) -> None:
        """This side sends no more."""
        if self.sending is Half.OPEN:
            self.sending = Half.ENDED

    def stop(self) -> None:
        """This side reads no more."""
        if self.receiving is Half.OPEN:
            self.receiving = Half.STOPPED

    def break_off(self) -> None:
        """The peer left, or frames between the two were lost: what had not ended is broken."""
        if self.sending is Half.OPEN:
            self.sending = Half.BROKEN
        if self.receiving is Half.OPEN:
            self.receiving = Half.BROKEN

    def receive(self, message: bytes) -> bytes:
        """Take one message of the peer; return the stream bytes that it carries, often none.

        Raises:
            RemoteProtocolError: an empty message, or a kind that does not exist.
        """
        if not message or message[0] > StreamKind.BROKEN:
            raise RemoteProtocolError("a stream's message begins with its kind, 0 to 3")
        kind = StreamKind(message[0])
        if kind is StreamKind.DATA:
            return message[1:] if self.receiving is Half.OPEN else b""
        if kind is StreamKind.END:
            self.peer_finished = True
            if self.receiving is Half.OPEN:
                self.receiving = Half.ENDED
        elif kind is StreamKind.STOP and self.sending is Half.OPEN:
            self.sending = Half.STOPPED
        elif kind is StreamKind.BROKEN:
            self.peer_finished = True
            self.break_off()
        return b""
