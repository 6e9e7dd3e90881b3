"""A relay's status for a terminal: the parts that `status` prints once and `top` each second.

Text that a client chose arrives here in printable ASCII, and goes into `Text`, which has no markup.
"""

import time
from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from ..protocol import id_name
from ._logging import one_line
from ._status import Change, Client, Status

LONG_WAIT = 5
"""Seconds after which a wait is shown as a fault; the alert in the documentation has the same bound."""
_BLOCKS = " ▁▂▃▄▅▆▇█"

SORTS: dict[str, Callable[[Client, Change], float]] = {
    "id": lambda client, _: client.id,
    "sent": lambda client, change: -change.sent(client),
    "received": lambda client, change: -change.received(client),
    "queue": lambda client, _: -client.queued,
    "waiting": lambda client, _: -client.waiting_seconds if client.waiting_for is not None else 1,
}
"""The order of clients for each of `SORT_KEYS`, most first."""


def count_text(number: float) -> str:
    """Return a count or a rate: digits up to a million, then a letter."""
    if 0 < number < 9.95 and number != int(number):
        return f"{number:.1f}"
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.1f}{letter}"
    return f"{number:,.0f}"


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = int(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {name}"
    return f"{whole} s"


def headline(status: Status) -> Text:
    """Return the relay's name and state."""
    where = one_line(", ".join(status.listeners))
    text = Text.assemble(
        ("triorelay", "bold"), f" {status.version}  up {duration_text(status.uptime_seconds)}  ", (where, "dim")
    )
    if status.took_over is not None:
        at, version = duration_text(status.took_over.seconds_ago), one_line(status.took_over.from_version, 64)
        text.append(f"  took over from {version} {at} ago", "dim")
    if status.draining:
        text.append("  draining", "bold yellow")
    return text


def totals(status: Status) -> Text:
    """Return the counts of frames."""
    ledger = status.ledger
    text = Text.assemble(
        (count_text(len(status.clients)), "bold"),
        f" clients   accepted {count_text(ledger.accepted)}   written {count_text(ledger.written)}   "
        f"queued {count_text(ledger.queued)}   ",
    )
    return text.append(f"dropped {count_text(status.dropped)}", "bold red" if status.dropped else "")


def waits(status: Status) -> Text:
    """Return which client waits for which, a line each; empty if none waits."""
    lines = []
    for client in status.waiting:
        style = "bold white on red" if client.waiting_seconds >= LONG_WAIT else "bold black on yellow"
        lines.append(
            Text.assemble(
                (f" {client.name} waits for {id_name(client.waiting_for or 0)} ", style),
                time.strftime(" since %H:%M:%S, ", time.localtime(time.time() - client.waiting_seconds)),
                duration_text(client.waiting_seconds),
            )
        )
    return Text("\n").join(lines)


def realm(status: Status) -> Text:
    """Return which ids each other relay holds, one line for each relay; empty without a realm."""
    if status.cluster is None:
        return Text()
    cluster, lines = status.cluster, []
    head = Text.assemble(("realm ", ""), (one_line(cluster.realm, 64), "bold"), f"  as {one_line(cluster.relay, 64)}")
    if not cluster.up:
        head.append("  cannot be reached", "bold red")
    for count, what in ((cluster.lost, "frames lost"), (cluster.garbage, "messages not understood")):
        if count:
            head.append(f"  {count_text(count)} {what}", "yellow")
    for name, ids in cluster.others.items():
        lines.append(Text.assemble((f"  {one_line(name, 64)}  ", ""), (" ".join(map(id_name, ids)), "bold")))
    return Text("\n", no_wrap=True, overflow="ellipsis").join([head, *lines])


def drops(status: Status) -> Text:
    """Return how many frames were dropped, and why, a line a reason."""
    reasons = sorted(status.ledger.dropped.items(), key=lambda item: -item[1])
    return Text("\n").join(
        Text.assemble(
            (f"dropped {count_text(count)}", "red"), f"  {reason.replace('_', ' ')}  ", _worst(status, reason)
        )
        for reason, count in reasons
    )


def _worst(status: Status, reason: str) -> tuple[str, str]:
    here = sorted((drop for drop in status.drops if drop[2] == reason), key=lambda drop: -drop[3])
    pairs = [(source, destination) for source, destination, _, _ in here if source is not None]
    if not pairs:
        return ("many pairs" if here else ""), "dim"
    source, destination = pairs[0]
    # A relay that has too many to list sums up the rest.
    others = "many" if len(pairs) < len(here) else str(len(pairs) - 1)
    more = f" and {others} more pairs" if len(here) > 1 else ""
    receiver = id_name(destination) if destination else "the relay"
    return f"{id_name(source) if source else 'observers'} to {receiver}{more}", "dim"


def clients(status: Status, change: Change | None = None, *, sort: str = "id", most: int | None = None) -> Table:
    """Return the clients as a table, at most so many; how many are left out is said below.

    With the `change` of the last second, rates are shown in place of totals.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id", style="bold", no_wrap=True)
    # If there is no room for all, these two get narrower: rich narrows columns that may wrap, and their texts don't.
    table.add_column("from", ratio=1)
    table.add_column("principal")
    table.add_column("since", no_wrap=True)
    for name in ("sent", "received"):
        table.add_column(f"{name}/s" if change else name, justify="right", no_wrap=True)
    table.add_column("queue", justify="right", no_wrap=True)
    table.add_column("waits for", no_wrap=True)
    moved = change or Change(None, status)
    ordered = sorted(status.clients, key=lambda client: SORTS[sort](client, moved))
    for client in ordered[:most]:
        holders = status.holders[client.id] + sum(status.sharers(client.id).values())
        table.add_row(*_row(client, change, holders))
    if most is not None and len(ordered) > most:
        table.caption = f"and {len(ordered) - most} more"
        table.caption_justify = "left"
    return table


def _row(client: Client, change: Change | None, holders: int) -> Sequence[Text]:
    waiting = Text()
    if client.waiting_for is not None:
        style = "bold red" if client.waiting_seconds >= LONG_WAIT else "bold yellow"
        waiting = Text(f"{id_name(client.waiting_for)}, {duration_text(client.waiting_seconds)}", style)
    return (
        Text(f"{client.name} (1 of {holders})" if client.shared else client.name),
        Text(client.origin, no_wrap=True, overflow="ellipsis"),
        Text(one_line(client.principal), no_wrap=True, overflow="ellipsis"),
        Text(duration_text(client.connected_seconds), "dim"),
        Text(count_text(change.sent(client) if change else client.sent)),
        Text(count_text(change.received(client) if change else client.received)),
        Text(count_text(client.queued), "bold yellow" if client.queued else ""),
        waiting,
    )


def pairs(status: Status, change: Change, *, most: int) -> Table:
    """Return the busiest pairs as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("busiest pairs", no_wrap=True, min_width=13)
    table.add_column("frames", justify="right", no_wrap=True, min_width=9)
    table.add_column("/s", justify="right", no_wrap=True, min_width=9)
    moved = [(change.pair(*pair), pair) for pair in status.pairs]
    for rate, (source, destination, count) in sorted(moved, key=lambda item: (-item[0], -item[1][2]))[:most]:
        table.add_row(f"{id_name(source)} to {id_name(destination)}", count_text(count), count_text(rate))
    return table


def history_line(rates: Sequence[float], width: int) -> str:
    """Return the last `width` rates as a line of blocks, the highest of them being full."""
    shown = list(rates)[-width:]
    most = max(shown, default=0) or 1
    return "".join(_BLOCKS[round(rate / most * (len(_BLOCKS) - 1))] for rate in shown).rjust(width)
