"""The dashboard for a terminal.

1. One task follows `/events` and draws each status as it comes. If the relay ends, it waits for the next one; without a
   relay at the start it is an error.
2. One task reads keys, without echo and without waiting for a line; one waits for signals. Either of them ends it all.
3. However it ends, the terminal gets back its screen and its settings.
"""

import os
import signal
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..protocol import id_name
from . import _status_view as view
from ._admin_client import AdminError, Answer, Endpoint
from ._logging import one_line
from ._options import SORT_KEYS
from ._status import Change, Status

KEYS_SHOWN = ", ".join(f"{key} {name}" for key, name in SORT_KEYS.items())
SILENCE = 5
"""Seconds of silence after which the connection counts as lost: a status comes each second."""
RETRY = 1.0
EVENTS_KEPT = 8
HISTORY_KEPT = 400
LINES_BESIDES_CLIENTS = 18


async def watch(endpoint: Endpoint, sort: str) -> None:
    """Show the relay at `endpoint` until the user quits; an AdminError if there is none, or it refuses."""
    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live, _keys_without_echo():
        screen = _Screen(live, sort)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_quit_on_signal, screen, nursery.cancel_scope)
            nursery.start_soon(_obey_keys, screen, nursery.cancel_scope)
            await _follow_forever(endpoint, screen)


async def _follow_forever(endpoint: Endpoint, screen: "_Screen") -> None:
    while True:
        try:
            async with endpoint.ask("GET", "/events") as answer:
                try:
                    await _follow(answer, screen)
                except (ValueError, KeyError, msgspec.MsgspecError):
                    raise endpoint.stranger() from None
        except AdminError as error:
            if screen.status is None:
                raise
            screen.lose(str(error))
        await trio.sleep(RETRY)


async def _follow(answer: Answer, screen: "_Screen") -> NoReturn:
    name = ""
    while True:
        with trio.move_on_after(SILENCE) as patience:
            line = await answer.line()
        if patience.cancelled_caught:
            raise AdminError("the relay has fallen silent")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            screen.take(name, line.removeprefix("data: "))


async def _quit_on_signal(screen: "_Screen", everything: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGWINCH) as signals:
        async for number in signals:
            if number != signal.SIGWINCH:
                everything.cancel()
            screen.draw()


async def _obey_keys(screen: "_Screen", everything: trio.CancelScope) -> None:
    if not sys.stdin.isatty():
        return
    while True:
        await trio.lowlevel.wait_readable(sys.stdin)
        keys = os.read(sys.stdin.fileno(), 64).decode("ascii", "replace")
        if not keys or "q" in keys.lower():
            everything.cancel()
            return
        for key in keys:
            screen.sort = SORT_KEYS.get(key.lower(), screen.sort)
        screen.draw()


@contextmanager
def _keys_without_echo() -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class _Screen:
    """The contents of the screen: the newest status, in an order of clients."""

    def __init__(self, live: Live, sort: str) -> None:
        self.sort = sort
        self.status: Status | None = None
        self._live = live
        self._change: Change | None = None
        self._accepted: deque[float] = deque(maxlen=HISTORY_KEPT)
        self._written: deque[float] = deque(maxlen=HISTORY_KEPT)
        self._events: deque[Text] = deque(maxlen=EVENTS_KEPT)
        self._lost = ""

    def take(self, name: str, data: str) -> None:
        """Take an event of the feed."""
        if name == "status":
            self._take_status(msgspec.json.decode(data, type=Status))
        elif name in ("joined", "left"):
            self._note(*_membership(name, msgspec.json.decode(data)))
        self.draw()

    def _take_status(self, status: Status) -> None:
        self._lost = ""
        if self.status is not None:
            if status.uptime_seconds < self.status.uptime_seconds:
                self._note("relay", "was restarted; its counters start again", "yellow")
            self._change = Change(self.status, status)
            self._accepted.append(self._change.accepted)
            self._written.append(self._change.written)
        self.status = status

    def lose(self, why: str) -> None:
        """Note that there is no connection."""
        if not self._lost:
            self._note("relay", why, "red")
        self._lost = why
        self.draw()

    def _note(self, subject: str, what: str, style: str) -> None:
        self._events.appendleft(
            Text.assemble((time.strftime("%H:%M:%S "), "dim"), (subject, f"bold {style}"), f" {one_line(what, 120)}")
        )

    def draw(self) -> None:
        """Draw the screen."""
        if self.status is not None:
            self._live.update(Group(*self._parts(self.status)), refresh=True)

    def _parts(self, status: Status) -> Iterator[RenderableType]:
        change = self._change or Change(None, status)
        yield view.headline(status)
        if self._lost:
            yield Text(f" {one_line(self._lost, 200)}; trying again ", "bold white on red")
        yield view.totals(status)
        said = [part for part in (view.realm(status), view.waits(status)) if part]
        yield from said
        yield Text()
        yield self._traffic(change)
        yield Text()
        height = self._live.console.height - LINES_BESIDES_CLIENTS - sum(part.plain.count("\n") + 1 for part in said)
        yield view.clients(status, change, sort=self.sort, most=max(height, 3))
        yield Text()
        yield self._below(status, change)
        yield Text(f"sorted by {self.sort}; keys: {KEYS_SHOWN}, q quit", "dim")

    def _traffic(self, change: Change) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        width = max(10, self._live.console.width - 24)
        for name, rates, now, style in (
            ("in/s", self._accepted, change.accepted, "blue"),
            ("out/s", self._written, change.written, "green"),
        ):
            line = view.history_line(rates, min(width, HISTORY_KEPT))
            table.add_row(Text(name, "dim"), Text(f"{view.count_text(now):>8}", "bold"), Text(line, style))
        return table

    def _below(self, status: Status, change: Change) -> Table:
        table = Table.grid(padding=(0, 4, 0, 0))
        table.add_row(view.pairs(status, change, most=5), view.drops(status), Text("\n").join(list(self._events)[:6]))
        return table


def _membership(name: str, facts: dict[str, Any]) -> tuple[str, str, str]:
    client = id_name(facts["id"])
    if name == "joined":
        return client, f"joined over {facts['transport']} {facts['address']}", "green"
    reason = facts["reason"].replace("_", " ")
    return client, "left" if reason in ("", "left") else f"left: {reason}", "default"
