"""The exceptions of triorelay. The name of each says which side is at fault."""

from ._ids import id_name, id_text
from ._reasons import CloseReason, Refusal


class RelayError(Exception):
    """Base of every exception that triorelay defines."""


class ProtocolError(RelayError):
    """One side broke the wire protocol. Abstract: one of the two classes below is raised."""

    def __init__(self, *args: object) -> None:
        if type(self) is ProtocolError:
            raise TypeError("ProtocolError is abstract: raise LocalProtocolError or RemoteProtocolError")
        super().__init__(*args)


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol does not allow; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something that the protocol does not allow."""


class HelloRefused(RelayError):
    """The relay refused the hello.

    Attributes:
        id: the id that was claimed, as a one-character string; empty if any free id was asked for.
        code: why: the number of a `Refusal`, or one that this version does not know.
    """

    def __init__(self, id: int, code: int) -> None:
        super().__init__(id, code)
        self.id: str = id_text(id) if id else ""
        self.code: int = code

    def __str__(self) -> str:
        try:
            meaning = Refusal(self.code).meaning
        except ValueError:
            meaning = "unknown reason"
        return f"the relay refused id {id_name(ord(self.id)) if self.id else 'any'}: {meaning} (code {self.code:d})"


class ConnectionLost(RelayError):
    """The connection to the relay ended without this side asking for it.

    Attributes:
        reason: what the relay gave as the reason, or `CloseReason.RESET` where it could not say.
        detail: more about the end, for people; may be empty.
        when: how many seconds ago it ended, if this is reported later; else 0.
        restored: whether the client has reconnected since.
    """

    def __init__(self, reason: CloseReason, detail: str = "", *, when: float = 0.0, restored: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason: CloseReason = reason
        self.detail: str = detail
        self.when: float = when
        self.restored: bool = restored

    def __str__(self) -> str:
        ago = f" {self.when:.1f} s ago" * (self.when >= 0.05)  # else it rounds to nothing
        since = ", and was made again; what was sent before may not have arrived" * self.restored
        return f"the connection to the relay ended{ago}: {self.detail or self.reason.label.replace('_', ' ')}{since}"


class ConfigError(RelayError):
    """A setting is wrong. The message is one line: where, what is wrong, what is allowed."""
