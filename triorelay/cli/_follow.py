"""Runs of frames from the admin endpoint, until a signal, a time or the end of the relay.

1. After the first signal the relay sends what it has kept, and no more: frames routed before the signal are not lost.
   The second signal ends the command at once.
2. Nothing here can slow the relay down. The relay itself reports how much it could not keep.
"""

import signal
from collections.abc import AsyncIterator, Callable

import trio

from ..client._bare import open_bare_nursery
from ..recording import Entry, RunReader
from ._admin_client import AdminError, Answer, Wanted

REST_SECONDS = 5.0
"""Seconds for what the relay has kept, at most a MiB; after that the connection counts as broken."""


async def follow(
    wanted: Wanted, take: Callable[[Entry], None], began: Callable[[], None], seconds: float | None = None
) -> bool:
    """Give each entry to `take`, until SIGTERM, Ctrl-C, or `seconds` have passed.

    Args:
        wanted: what to follow.
        take: gets each entry, in order. What it raises comes out.
        began: called once, before the first entry: every frame from now on will be seen, or counted as lost.
        seconds: how long; None for no limit.

    Returns:
        Whether Ctrl-C ended it.

    Raises:
        AdminError: no relay answers, or it ended.
    """
    stop, received = trio.Event(), 0

    async def obey(signals: AsyncIterator[int]) -> None:
        nonlocal received
        received = await anext(signals)
        stop.set()
        await anext(signals)
        nursery.cancel_scope.cancel()

    async def wait(limit: float) -> None:
        await trio.sleep(limit)
        stop.set()

    async def end(answer: Answer) -> None:
        await stop.wait()
        await answer.end()
        await trio.sleep(REST_SECONDS)
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(obey, signals)
            if seconds is not None:
                nursery.start_soon(wait, seconds)
            async with wanted.asked.ask("GET", wanted.path) as answer:
                nursery.start_soon(end, answer)
                pieces = _entries_of(answer)
                entries: list[Entry] | None = await anext(pieces, [])
                began()
                while entries is not None:
                    for entry in entries:
                        take(entry)
                    entries = await anext(pieces, None)
            if not stop.is_set() and wanted.place == "/record":
                raise AdminError(f"the relay at {wanted.asked.address} ended the connection")
            nursery.cancel_scope.cancel()
    return received == signal.SIGINT


async def _entries_of(answer: Answer) -> AsyncIterator[list[Entry]]:
    reader = RunReader()
    while (piece := await answer.piece()) is not None:
        try:
            entries = reader.feed(piece)
        except ValueError as error:
            raise AdminError(f"what the relay sends are no runs of frames: {error}") from None
        yield entries
