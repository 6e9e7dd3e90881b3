"""Claims: how a client here gets an id that is held once among all relays.

1. An id is claimed by creating its key: the engine lets one relay do that. A claim to share an id adds its lease to a
   key that has only such leases.
2. Any other key that exists belongs to clients elsewhere. This relay asks the others whether one of them is still
   connected. The claim waits for the answer, or until the leases run out.
3. One connection to the engine decides a claim. If that connection is lost meanwhile, the claim begins again once it is
   known whether the engine can be reached.
4. While the engine is away, this relay grants ids on its own, or refuses them, as configured. It does not grant an id
   for which another relay has a lease that still runs, unless both share it: the claim waits until the lease has run
   out or the engine is back.
5. A claim that is given up midway may have created the key already. The relay deletes such a key, and begins no other
   claim of the id before that.
6. The relay has the lease of an id that is shared here already, so it grants that to another client at once.
"""

from collections.abc import Callable

import trio

from ..relay import CloseReason, Config, Grant, Refusal, Refused, Registry, RemoteLease
from ._engine import Engine, EngineAway
from ._lease import Lease
from ._leases import Leases
from ._uplink import Uplink
from ._view import View
from ._wire import Held, Question

ASK_AGAIN = 0.5
"""Seconds after which a waiting claim is tried again, in case it missed the change that it waits for."""
LOOK_AGAIN = 0.05
"""The same, if the key exists and its lease was not reported yet, which takes a moment."""


class Claims:
    """The claims of one relay, its own and those that ask for its ids."""

    def __init__(
        self, uplink: Uplink, view: View, leases: Leases, registry: Registry, config: Callable[[], Config]
    ) -> None:
        """Make it without claims; `config` returns the relay's settings, which may change."""
        self._uplink = uplink
        self._view = view
        self._leases = leases
        self._registry = registry
        self._config = config
        self._kept: dict[int, int] = {}  # by id: the lease that its relay keeps, as it said last

    async def claim(self, id: int, grant: Grant, shared: bool, patience: float) -> None:
        """Claim `id`, for `patience` seconds at most; see `Remote.claim`."""
        lease = self._leases.new(id, grant, shared=shared)
        obstacle = "what an earlier session of it sent is not handed over to other relays yet"
        granted = False
        try:
            with trio.move_on_after(patience):
                while (ours := self._leases.get(id)) is not None and shared and ours.shared and not ours.leaving:
                    await self._engine()
                    if self._leases.get(id) is ours and not ours.leaving:
                        return  # there is no checkpoint from here until the relay gives the id to the session
                await self._leases.cleared(id)
                obstacle = "another relay of the realm holds it"
                while not granted:
                    granted = await self._decide(lease)
                self._leases.add(lease)
                return
        finally:
            if lease.asked and not granted:
                self._leases.clear(lease)
        raise Refused(Refusal.TAKEN, obstacle)

    async def _engine(self) -> Engine | None:
        """Return the engine once it is known whether it can be reached, None if claims are granted without it.

        Raises:
            Refused: it is away, and this relay refuses claims then.
        """
        engine = await self._uplink.decided()
        if engine is None and self._uplink.config.fallback == "refuse":
            raise Refused(
                Refusal.UNAVAILABLE, "the engine is away, and so it cannot be decided which client has the id"
            )
        return engine

    async def _decide(self, lease: Lease) -> bool:
        """Wait until `lease` is granted, or the claim must be tried again; return whether it is granted.

        Raises:
            Refused: another client has it, or it cannot be decided.
        """
        engine = await self._engine()
        if engine is not None:
            return await self._won(engine, lease)
        if self._obstacles(lease):
            await self._changed(lease.id, ASK_AGAIN)
            return False
        # There is no checkpoint from here until the relay gives the id to the session.
        lease.token = lease.revision = 0
        lease.adopted = True
        return True

    def _obstacles(self, lease: Lease) -> list[RemoteLease]:
        """Return the leases of other relays that `lease` does not share its id with."""
        return [other for other in self._view.holders(lease.id) if not (lease.shared and other.shared)]

    async def _won(self, engine: Engine, lease: Lease) -> bool:
        """Try for the key once, and wait where it is taken; return whether this relay has it."""
        view = self._view
        try:
            if not self._obstacles(lease) and not view.may_come_back(lease.id):
                lease.asked = True
                if await self._leases.create(engine, lease):
                    # If the connection was lost meanwhile, the key is not confirmed: the next connection has to decide.
                    return self._uplink.connected is engine
            await self._wait_for(lease)
        except EngineAway as away:
            # A relay that did not get this answer cannot rely on the others: it has to reconnect first.
            if self._uplink.engine is engine:
                self._uplink.lost(str(away))
        return False

    async def _wait_for(self, lease: Lease) -> None:
        """Wait until `lease` can be tried for again.

        Raises:
            Refused: a holder's client is there and stays.
        """
        others = self._obstacles(lease)
        if not others:
            await self._changed(lease.id, LOOK_AGAIN)
            return
        replaces = self._config().duplicate == "replace" and lease.grant.portable and not lease.shared
        principal = lease.grant.principal if replaces else ""
        self._kept.pop(lease.id, None)
        for other in others:
            self._uplink.tell(other.relay, Question(self._uplink.nonce, other.id, other.token, principal))
        await self._changed(lease.id, ASK_AGAIN)
        for other in others:
            if self._kept.get(lease.id) == other.token:
                raise Refused(Refusal.TAKEN, f"a client of the relay {other.name} holds it")

    async def _changed(self, id: int, seconds: float) -> None:
        """Wait until a lease of `id` comes, goes or changes, or is said to be kept; so many seconds at most."""
        with trio.move_on_after(seconds):
            await self._view.changed(id).wait()

    def asked(self, question: Question) -> None:
        """Answer another relay that claims an id which this one holds."""
        lease, sessions = self._leases.get(question.id), self._registry.holders(question.id)
        if lease is None or lease.token != question.token:
            return  # the holder is leaving: the claim waits for that
        if all(session.connection.hung_up() for session in sessions):
            return  # and so are these
        replaced = not lease.shared and lease.grant.portable and lease.grant.principal == question.principal != ""
        if replaced and self._config().duplicate == "replace":
            sessions[0].close(CloseReason.REPLACED)
        elif self._uplink.confirmed():
            self._uplink.tell(question.relay, Held(self._uplink.nonce, question.id, question.token))

    def answered(self, held: Held) -> None:
        """Note that the holder of an id that this relay claims keeps it."""
        self._kept[held.id] = held.token
        self._view.tell(held.id)
