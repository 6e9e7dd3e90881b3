"""What the old relay and its successor say to each other; `_drive` says it.

    successor                          old relay
    greeting: state versions    ->
                                <-     offer: version, size, number of descriptors; or refusal: reason
                                       (from its offer on the old relay stands still)
                                <-     the state, and the descriptors with its first bytes
    ready; or failure: reason   ->
                                <-     go
                                       (the old relay is gone)

1. A word is one line of JSON of at most `LONGEST_WORD` bytes. The state follows the offer in `size` raw bytes.
2. At every moment one relay serves. Until the old relay sends `go`, that is the old one, and `go` is its last action.
   The successor serves only after `go`, or if the old relay has died after the whole state had arrived.
3. The end of the connection does not show whether the old relay died or gave up. The first descriptor does: it is the
   read end of a pipe, and the old relay keeps the write end until it ends. The successor checks it.

What holds when something fails:

| when                    | what fails                              | the old relay | the successor                    |
|-------------------------|-----------------------------------------|---------------|----------------------------------|
| before the offer        | a refusal, nonsense, time, either end   | serves on     | ends with the reason             |
| before the offer        | the old relay dies                      | is gone       | starts as if no relay had run    |
| offer to whole state    | nonsense, time, the successor ends      | serves on     | ends with the reason             |
| offer to whole state    | the old relay dies                      | is gone       | starts as if no relay had run    |
| whole state to `ready`  | failure, time, the successor ends       | serves on     | ends with the reason             |
| whole state to `go`     | the old relay dies                      | is gone       | serves                           |
| `ready` to `go`         | time: the old relay gave up             | serves on     | ends with the reason             |
| after `go`              | the successor dies                      | is gone       | is gone; clients see a reset     |

No conversation can avoid the last row: the side that gets the last word may die after it.
"""

from dataclasses import asdict, dataclass
from typing import Any, TypeVar, get_args

LONGEST_WORD = 4096
"""Bytes of a word: a reason for a person takes a line or two."""
LONGEST_STATE = 1 << 29
"""Bytes: some ten times what full queues of the default size take. What claims to be larger is no state."""
MOST_DESCRIPTORS = 2048
"""255 sessions, as many that are leaving, 512 pending connections and the listeners are about half of that."""


class HandoverFailed(Exception):
    """The handover did not happen, and the old relay continues. The text says why, in one line."""


class PredecessorDied(Exception):
    """The old relay is gone, and its state did not arrive."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The successor's first word.

    Attributes:
        versions: the versions of the state that it can continue from.
        release: its own version, for people.
    """

    versions: list[int]
    release: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The old relay's answer: what it sends next.

    Attributes:
        version: of the state.
        size: of the state, in bytes.
        descriptors: how many come with it.
    """

    version: int
    size: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The successor can continue from the state."""


@dataclass(frozen=True, slots=True)
class Go:
    """The successor serves from now on."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Either side gives up.

    Attributes:
        reason: one line for a person.
    """

    reason: str


Word = Greeting | Offer | Ready | Go | Failure
W = TypeVar("W", bound=Word)
_WORDS: dict[object, type[Word]] = {kind.__name__.lower(): kind for kind in get_args(Word)}


def encode(word: Word) -> bytes:
    """Return `word` as one line; the reason of a failure is cut so that it fits."""
    if isinstance(word, Failure):
        word = Failure(word.reason[: LONGEST_WORD // 12])  # a character takes at most 12 bytes of JSON
    import msgspec  # only here: most relays end without a handover

    return msgspec.json.encode({"word": type(word).__name__.lower(), **asdict(word)}) + b"\n"


def decode(line: bytes) -> Word:
    """Return the word that a line is.

    Raises:
        HandoverFailed: it is none.
    """
    import msgspec

    try:
        said: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        return msgspec.convert(said, _WORDS[said["word"]])
    except (msgspec.MsgspecError, LookupError, RecursionError, TypeError, UnicodeDecodeError):
        raise HandoverFailed("the other side speaks another protocol") from None


class Words:
    """The words that one side hears."""

    def __init__(self, speaker: str) -> None:
        """Begin to listen; `speaker` is what a reason calls the other side."""
        self.rest = bytearray()
        self._speaker = speaker

    def take(self, data: bytes, expected: type[W]) -> W | None:
        """Take what arrived, b"" for the end of the connection; return the word that is complete now.

        Raises:
            HandoverFailed: the other side gave up or left, or what it says is not what it may say now.
        """
        if not data:
            raise HandoverFailed(f"{self._speaker} left")
        self.rest += data
        end = self.rest.find(b"\n", 0, LONGEST_WORD)
        if end < 0:
            if len(self.rest) >= LONGEST_WORD:
                raise HandoverFailed("the other side speaks another protocol")
            return None
        word = decode(bytes(self.rest[: end + 1]))
        del self.rest[: end + 1]
        if isinstance(word, Failure):
            raise HandoverFailed(word.reason)
        waits_for_answer = isinstance(word, Greeting | Ready)
        if not isinstance(word, expected) or (waits_for_answer and self.rest):
            raise HandoverFailed(f"{self._speaker} speaks out of turn")
        return word
