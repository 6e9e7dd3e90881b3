"""Why a hello was refused, a session closed, a frame dropped: one enum each for wire, log and metrics."""

from enum import Enum, IntEnum


class Refusal(IntEnum):
    """The second byte of the relay's answer to a hello; 0 welcomes."""

    def __new__(cls, code: int, meaning: str = "") -> "Refusal":
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    meaning: str

    WELCOME = 0, "welcome"
    TAKEN = 1, "the id is taken"
    NOT_ALLOWED = 2, "not allowed to hold this id"
    BAD_HELLO = 3, "bad hello"
    FULL = 4, "the relay is full"
    DRAINING = 5, "the relay is shutting down"
    AUTHENTICATION = 6, "authentication required or failed"
    UNAVAILABLE = 7, "unavailable now, try again"

    @property
    def label(self) -> str:
        return self.name.lower()


class CloseReason(IntEnum):
    """Why a session ended. The number is the argument of a CLOSING event."""

    LEFT = 1
    """The client shut its sending side."""
    RESET = 2
    """The connection broke."""
    SLOW_CONSUMER = 3
    """Nothing was taken for the stall timeout, or too many events were not taken."""
    REPLACED = 4
    """The same principal claimed the id again (`--duplicate replace`)."""
    DRAINING = 5
    """The relay is shutting down."""
    CLOSED = 6
    """An operator closed it."""
    DENIED = 7
    """A reloaded policy no longer lets it hold its id."""
    FENCED = 8
    """Another relay of the realm holds the id by an older lease."""
    HELLO_TIMEOUT = 9
    """No id was claimed within the hello timeout."""
    REFUSED = 10
    """The claim was refused."""
    CROWDED_OUT = 11
    """Too many sessions without an id."""
    ERROR = 12
    """A bug in the relay; its log has the traceback."""

    @property
    def label(self) -> str:
        return self.name.lower()


class DropReason(Enum):
    """Why an accepted frame was not written; `value` is its name in the ledger and the metrics."""

    NO_ROUTE = "no_route"
    QUEUE_FULL = "queue_full"
    SLOW_CONSUMER = "slow_consumer"
    PEER_GONE = "peer_gone"
    SOURCE_CLOSED = "source_closed"
    HOLD_EXPIRED = "hold_expired"
    DENIED = "denied"
    DRAINING = "draining"
    CLUSTER_DOWN = "cluster_down"
    FENCED = "fenced"
