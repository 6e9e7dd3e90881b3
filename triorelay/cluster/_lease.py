"""One lease of this relay, as far as it knows."""

from dataclasses import dataclass, field

import trio

from ..relay import Grant
from ._wire import LeaseValue


@dataclass(eq=False, slots=True)
class Lease:
    """One id of this relay, for one session, or for all that share it here.

    Attributes:
        id: the id.
        session: numbers this relay's claims.
        grant: what its first client may do.
        shared: whether its clients share it.
        asked: whether the engine was asked to create it.
        token: the fencing token; 0 while there is no lease.
        revision: the key's newest revision that is known.
        alone: whether the key has no other lease in it, as far as is known.
        renewed: counts the times that the engine was asked to write it.
        asked_at: when the last of them was.
        renewed_at: when the last of them was that is known to have succeeded.
        former: the token of the first lease that ran out while the engine was away; 0 for none.
        adopted: whether the id was taken or kept while the engine was away.
        leaving: the client left.
        gone: set when the id is given up or lost.
        changing: held while the key is being changed.
    """

    id: int
    session: int
    grant: Grant
    shared: bool
    asked: bool = False
    token: int = 0
    revision: int = 0
    alone: bool = True
    renewed: int = 0
    asked_at: float = float("-inf")
    renewed_at: float = float("-inf")
    former: int = 0
    adopted: bool = False
    leaving: bool = False
    gone: trio.Event = field(default_factory=trio.Event)
    changing: trio.Lock = field(default_factory=trio.Lock)

    def goes_before(self, other: LeaseValue) -> bool:
        """Return whether it has priority over `other`, which has its key now, because it is older than the absence."""
        former = self.former or self.token
        return other.adopted and bool(former) and (not other.former or former < other.former)
