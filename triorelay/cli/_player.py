"""The frames of a recording, sent again at the time at which they came.

1. The recording is read twice: first for its senders, who must all hold their ids before the first frame is sent, then
   for its frames. So a file of any length takes little memory.
2. Each sender has its own task and queue. So a sender whose destination does not read blocks no other until its queue
   is full. The order of a pair is kept; between pairs it is as exact as the timing.
3. Time runs from the first frame. A recorded clock that was set back makes frames come at once.
"""

import math
import statistics
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import click
import trio

from ..client import Client
from ..client._bare import open_bare_nursery
from ..protocol import RELAY, id_byte, id_name
from ..recording import Entry, Run
from ._client import discard, is_there, lines_of_standard_input
from ._client_options import RelayOptions, beside

HEAD_START = 0.2
"""Seconds until the first run is due. By then the first runs are read, so the first one is as punctual as those after
it, whose time counts from it."""
QUEUED_RUNS = 256
"""Runs that are read ahead for each sender."""
LATENESS_KEPT = 10_000
"""The median at the end is that of so many of the last runs."""


Pair = tuple[int, int]


def pairs_of(entries: Iterable[Entry]) -> set[Pair]:
    """Read a recording through: return which ids sent to which, without the relay itself."""
    return {(one.source, one.destination) for one in entries if isinstance(one, Run) and one.destination != RELAY}


@dataclass(slots=True)
class Player:
    """Plays one recording.

    Attributes:
        options: which relay; its id, if any, is the one client that sends everything.
        destination: the id that gets everything; None for the recorded destinations.
        speed: how many times as fast as then; infinite for as fast as possible.
        frames: how many were sent so far.
        late: by how many seconds the last runs were late.
    """

    options: RelayOptions
    destination: int | None
    speed: float
    frames: int = 0
    late: deque[float] = field(default_factory=lambda: deque(maxlen=LATENESS_KEPT))
    _clients: dict[int, Client] = field(default_factory=dict)

    async def play(self, pairs: set[Pair], entries: Iterable[Entry]) -> None:
        """Claim the ids and send the frames. RelayError: there is no relay, an id is not free, or it went away."""
        async with self._claimed(pairs), open_bare_nursery() as nursery:
            queues = {id: trio.open_memory_channel[tuple[float, Run]](QUEUED_RUNS) for id in self._clients}
            for id, (_, receive) in queues.items():
                nursery.start_soon(self._send_all, self._clients[id], receive)
            for due, run in self._due(entries):
                await queues[self._id_for(run)][0].send((due, run))
            for send, _ in queues.values():
                send.close()

    async def step(self, pairs: set[Pair], entries: Iterable[Entry], show: Callable[[Run], None]) -> None:
        """Claim the ids, and send a run for each line of standard input, until its end. Raises the same as `play`."""
        async with self._claimed(pairs):
            steps = lines_of_standard_input()
            for _, run in self._due(entries):
                show(run)
                if await anext(steps, None) is None:
                    break
                await self._send(self._clients[self._id_for(run)], run)

    @asynccontextmanager
    async def _claimed(self, pairs: set[Pair]) -> AsyncIterator[None]:
        """Claim the ids for the length of the block, at whose end everything is flushed; say who is missing."""
        sources = {source for source, _ in pairs} if self.options.id is None else {self.options.id}
        destinations = {destination for _, destination in pairs} if self.destination is None else {self.destination}
        async with AsyncExitStack() as stack:
            for id in sorted(sources):
                client = await stack.enter_async_context(replace(self.options, id=id).open())
                await stack.enter_async_context(beside(discard, client))
                self._clients[id] = client
            present = {id for id in destinations for client in self._clients.values() if is_there(client, id)}
            if self._clients and (missing := sorted(destinations - present)):
                names = ", ".join(map(id_name, missing))
                click.echo(f"not there: {names}; the relay drops frames to them", err=True)
            yield
            for client in self._clients.values():
                await client.flush()

    def _due(self, entries: Iterable[Entry]) -> Iterable[tuple[float, Run]]:
        """Yield the runs that can be sent, each with the time at which it is due."""
        began: int | None = None
        start = 0.0
        for entry in entries:
            if isinstance(entry, Run) and entry.destination != RELAY:
                if began is None:
                    began = entry.time
                    start = trio.current_time() + (HEAD_START if math.isfinite(self.speed) else 0)
                yield start + (entry.time - began) / 1e9 / self.speed, entry

    def _id_for(self, run: Run) -> int:
        return run.source if self.options.id is None else self.options.id

    async def _send_all(self, client: Client, runs: trio.MemoryReceiveChannel[tuple[float, Run]]) -> None:
        async for due, run in runs:
            await trio.sleep_until(due)
            self.late.append(trio.current_time() - due)
            await self._send(client, run)

    async def _send(self, client: Client, run: Run) -> None:
        await client.send(run.destination if self.destination is None else self.destination, run.data)
        self.frames += len(run.data)

    def summary(self) -> str:
        """Return a summary in one line."""
        names = ", ".join(id_name(id_byte(client.id)) for client in self._clients.values())
        late = f", {1000 * statistics.median(self.late):.1f} ms late (median)" if self.late else ""
        return f"played {self.frames} frames as {names or 'no client'}{late}"
