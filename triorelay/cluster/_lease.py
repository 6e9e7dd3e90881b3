"""One lease of this relay, as far as it knows."""

import trio

from ..relay import Grant
from ._wire import LeaseValue


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

    def __init__(self, id: int, session: int, grant: Grant, *, shared: bool) -> None:
        self.id = id
        self.session = session
        self.grant = grant
        self.shared = shared
        self.asked = False
        self.token = 0
        self.revision = 0
        self.alone = True
        self.renewed = 0
        self.asked_at: float = float("-inf")
        self.renewed_at: float = float("-inf")
        self.former = 0
        self.adopted = False
        self.leaving = False
        self.gone: trio.Event = trio.Event()
        self.changing: trio.Lock = trio.Lock()

    def goes_before(self, other: LeaseValue) -> bool:
        """Return whether it has priority over `other`, which has its key now, because it is older than the absence."""
        former = self.former or self.token
        return other.adopted and bool(former) and (not other.former or former < other.former)
