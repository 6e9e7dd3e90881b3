"""When to try again after a connection was lost."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .._fields import check_fields
from ..protocol import CloseReason, Refusal

TAKEN_PATIENCE = 40.0
"""Seconds for which a claim that is refused as taken is tried again: the relay may need 30 s to detect that the old
connection is dead (its keepalive), plus its stall timeout."""

SHORTEST = 0.01
"""Seconds of the shortest pause except the first, before its spread: attempts fail at once while no relay runs, and
would be a busy loop without a pause."""

SETTLED = 10.0
"""Seconds that a session must last for the pauses to start again from the first: the default maximum. So a relay that
welcomes a client and closes at once is not asked more often, in the long run, than one that is not running."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a client reconnects after a loss: with growing pauses, spread so that many clients do not reconnect at once.

    After a session that lasted ten seconds the pauses start again from the first; after a shorter one they keep
    growing. A client that a new policy denies its id (`CloseReason.DENIED`) also reconnects, and keeps asking while it
    is refused, since the next policy may allow it. A client that another session of the same principal replaced
    (`CloseReason.REPLACED`) does not, because the two would replace each other without end. It fails, as without a
    `Backoff`.

    Attributes:
        first: seconds before the first attempt; 0 to try at once, after which pauses grow from 0.01.
        factor: how much longer each further pause is; at least 1.
        maximum: the longest pause in seconds, before its spread; at least 0.01.
        jitter: how much longer or shorter each pause is at random, as a part of the pause; 0 to 1.
        initial: whether the first connection is tried again too, if time alone may help: no relay listens there yet, or
            the relay is full or shutting down. Without it, `open_client` fails at once.
        sends: what a `send` does while there is no connection: wait for the next one, or fail at once with
            `ConnectionLost`.

    Raises:
        ValueError: a value of the wrong type, a number that is not finite or out of its bounds; the text names it.
    """

    first: float = 0.1
    factor: float = 2.0
    maximum: float = 10.0
    jitter: float = 0.2
    sends: Literal["wait", "fail"] = "wait"
    initial: bool = False

    def __post_init__(self) -> None:
        check_fields(self, ValueError)
        bounds: list[tuple[str, float, float, float]] = [
            ("maximum", self.maximum, SHORTEST, math.inf),
            ("first", self.first, 0, self.maximum),
            ("factor", self.factor, 1, math.inf),
            ("jitter", self.jitter, 0, 1),
        ]
        for name, value, low, high in bounds:
            if not low <= value <= high or math.isinf(value):
                most = "" if math.isinf(high) else f" and at most {high:.15g}"
                raise ValueError(f"{name} must be finite, at least {low:.15g}{most}, not {value:.15g}")

    def pauses(self) -> Iterator[float]:
        """Return the seconds to wait before each attempt, without end."""
        pause = self.first
        while True:
            yield pause * random.uniform(1 - self.jitter, 1 + self.jitter)
            pause = min(max(pause * self.factor, SHORTEST), self.maximum)


def is_passing(code: int, seconds: float, reason: CloseReason) -> bool:
    """Whether a refusal with `code`, `seconds` after a loss for `reason`, is worth another attempt."""
    match code:
        case Refusal.TAKEN:
            return seconds < TAKEN_PATIENCE
        case Refusal.NOT_ALLOWED | Refusal.AUTHENTICATION:
            return reason == CloseReason.DENIED  # an operator changed the policy, and may change it back
        case _:
            return code in (Refusal.FULL, Refusal.DRAINING, Refusal.UNAVAILABLE)
