"""Talking with the relay: pairs of adjacent frames with id 0, `0 code` and `0 argument`, in both directions."""

from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from ._errors import RemoteProtocolError
from ._frames import runs
from ._ids import id_name, id_text
from ._reasons import CloseReason


class EventCode(IntEnum):
    """Codes of events (relay to client) and requests (client to relay)."""

    JOINED = 1
    LEFT = 2
    NO_ROUTE = 3
    DROPPED = 4
    DRAINING = 5
    PONG = 6
    SYNCED = 7
    FLUSHED = 8
    CLOSING = 9
    PING = 6
    LIST = 7
    FLUSH = 8


@dataclass(frozen=True, slots=True)
class Event:
    """What the relay said.

    Attributes:
        code: an `EventCode`, one that the client makes itself, or the number of one that this version does not know.
        argument: an id, a number to match an answer with its request, or a close reason.
    """

    code: int
    argument: int

    def __post_init__(self) -> None:
        with suppress(ValueError):
            object.__setattr__(self, "code", EventCode(self.code))

    def __str__(self) -> str:
        """Return what a log would show: `JOINED B`, `CLOSING slow_consumer`, or two numbers."""
        name = getattr(self.code, "name", str(self.code))
        if name in ("SYNCED", "DRAINING"):
            return name
        if name in ("CLOSING", "LOST"):
            with suppress(ValueError):
                return f"{name} {CloseReason(self.argument).label}"
        if name in ("JOINED", "LEFT", "NO_ROUTE", "DROPPED", "RESTORED"):
            return f"{name} {id_name(self.argument)}"
        return f"{name} {self.argument}"

    @property
    def id(self) -> str:
        """The id that the event is about, as a one-character string; empty if it is about none."""
        about = (EventCode.JOINED, EventCode.LEFT, EventCode.NO_ROUTE, EventCode.DROPPED)
        return id_text(self.argument) if self.code in about else ""


def encode_event(code: int, argument: int) -> bytes:
    """Return the four bytes of an event or a request."""
    return bytes((0, code, 0, argument))


class FrameReader:
    """Splits what a client receives into data by source and events. The bytes may arrive in any split."""

    def __init__(self) -> None:
        self._half = b""
        self._code = -1

    def feed(self, chunk: bytes) -> list[tuple[int, bytes] | Event]:
        """Take what arrived; return data as (source, bytes) and events, in order.

        Adjacent frames of one source are joined. A half frame and a half event wait for their other half.

        Raises:
            RemoteProtocolError: a frame came between the two frames of an event; the reader must not be used any more.
        """
        if self._half or len(chunk) & 1:
            chunk = self._half + chunk
            end = len(chunk) & ~1
            chunk, self._half = chunk[:end], chunk[end:]
        found: list[tuple[int, bytes] | Event] = []
        for source, data in runs(chunk):
            if source:
                if self._code >= 0:
                    raise RemoteProtocolError(f"a frame from {id_name(source)} between the two frames of an event")
                found.append((source, data))
                continue
            for byte in data:
                if self._code < 0:
                    self._code = byte
                else:
                    found.append(Event(self._code, byte))
                    self._code = -1
        return found
