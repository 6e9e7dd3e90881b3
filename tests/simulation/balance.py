"""The ledger, checked after each step of each task that can change it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.simulation.world import RELAYS

if TYPE_CHECKING:
    from tests.simulation.world import World
    from triorelay.relay import Relay
    from triorelay.relay._outbox import Outbox

CLIENTS_OWN = (".receive", ".live", ".observe", ".come_and_go")
"""How the names of the clients' tasks end."""


class BalanceChecker(trio.abc.Instrument):
    """Checks the ledger after each step of each task that can change it.

    Half of all steps are the clients' own. What they do waits in their streams until the relay's next step. Checking
    what cannot have changed would take as long as all else.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums: dict[int, tuple[list[int], int]] = {}
        self._queues: dict[Outbox, tuple[tuple[int, int, int], int]] = {}

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        world = self._world
        world.steps += 1
        if not task.name.endswith(CLIENTS_OWN):
            relay = RELAYS[world.seed]
            self.check(relay)
            if world.lossless and len(relay.exchange.registry) == world.sessions:
                world.all_here.set()

    def check(self, relay: Relay) -> None:
        """Assert that every accepted frame is written, queued or dropped, and no queue is over its bound."""
        ledger, exchange = relay.ledger, relay.exchange
        accepted, copied = self._sum(-1, ledger.accepted), ledger.copied
        written = sum([self._sum(to, counts) - counts[0] for to, counts in ledger.by_destination.items() if counts])
        queued, dropped = 0, sum(ledger.dropped.values())
        most = relay.config.queue_bytes + 65536 + 8192 + 4096
        for outbox in exchange.outboxes:
            queued += self._queued(outbox)
            assert outbox.queued_bytes <= most
        assert accepted + copied == written + queued + dropped, (
            f"{accepted} + {copied} != {written} + {queued} + {dropped}"
        )

    def _sum(self, destination: int, counts: list[int]) -> int:
        """Return the sum of what is counted for one destination, or for all as accepted.

        A step changes one or two of the lists. To compare 256 numbers with a copy takes a sixth of the time of a sum.
        """
        known = self._sums.get(destination)
        if known is None or known[0] != counts:
            known = self._sums[destination] = counts[:], sum(counts)
        return known[1]

    def _queued(self, outbox: Outbox) -> int:
        """Return how many frames wait in `outbox`, counted anew whenever something came or went."""
        state = outbox.put_bytes, outbox.taken_bytes, len(outbox.paused)
        known = self._queues.get(outbox)
        if known is None or known[0] != state:
            known = self._queues[outbox] = state, outbox.queued_frames()
        return known[1]
