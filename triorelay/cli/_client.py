"""The commands that are short-lived clients of a relay, send, who, ping and bench, and what other commands share."""

import os
import select
import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click
import trio

from ..client import Client, NotDelivered
from ..protocol import Address, EventCode, RelayError, UnixAddress, id_byte, id_name, id_text
from ._client_options import RelayOptions, beside, client_options, complete_peer
from ._options import ID, Seconds, run

if TYPE_CHECKING:
    from ._status import Status

CHUNK = 65536
BLOCK = bytes(range(256)) * 1024
"""What `bench` measures throughput is measured with: 256 KiB of data, 512 KiB of frames."""

WAIT = click.option("--wait", type=Seconds(min=0), metavar="SECONDS", help="Wait at most so long for it to join.")
"""The option of commands that need another client; its value goes to `wait_joined`."""


async def read_standard_input() -> AsyncIterator[bytes]:
    """Yield the pieces of standard input as they come, until its end."""
    while chunk := await trio.to_thread.run_sync(_read, sys.stdin.fileno(), abandon_on_cancel=True):
        yield chunk


def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:  # another program that shares it made it non-blocking
            select.select((descriptor,), (), ())


async def discard(client: Client) -> None:
    """Discard data that others send, so that it does not hold up the relay's answers."""
    # A sender too gets an error when the relay ends.
    with suppress(RelayError):
        async for _ in client:
            pass


def report_id(options: RelayOptions, client: Client, doing: str) -> None:
    """Report on standard error which id the relay gave, if the user asked for any."""
    if options.id is None:
        click.echo(f"{doing} as {id_name(id_byte(client.id))}", err=True)


def is_there(client: Client, id: int) -> bool:
    """Return whether a client holds `id`, the client itself included."""
    return id_text(id) in {client.id, *client.peers}


async def wait_joined(client: Client, id: int, seconds: float | None) -> None:
    """Wait until a client holds `id`, for at most `seconds`; None does not wait at all."""
    if seconds is None or is_there(client, id):
        return
    with trio.move_on_after(seconds) as patience:
        await client.wait_for(id)
    if patience.cancelled_caught:
        raise click.ClickException(f"{id_name(id)} did not join within {seconds:g} s")


async def presence_changes(client: Client, known: set[int]) -> AsyncIterator[tuple[bool, int]]:
    """Yield, at each change, whether an id is held from now on, and the id; `known` is kept up to date.

    After more events than the client keeps, it yields the differences only.
    """
    while True:
        events = client.events()
        there = set(map(id_byte, client.peers))
        for id in sorted(known ^ there):
            known ^= {id}
            yield id in there, id
        with suppress(trio.BrokenResourceError):
            async for event in events:
                if event.code in (EventCode.JOINED, EventCode.LEFT):
                    known ^= {event.argument}
                    yield event.code == EventCode.JOINED, event.argument


@click.command()
@click.argument("destination", type=ID, shell_complete=complete_peer)
@click.argument("text")
@click.option("--message", is_flag=True, help="Send TEXT as one message; with - each line is one.")
@WAIT
@client_options
def send(options: RelayOptions, destination: int, text: str, message: bool, wait: float | None) -> None:
    """Send each byte of TEXT to DESTINATION; TEXT - is standard input.

    Ends with 0 when everything was written to the destination (it may not have read it yet), and with 1
    if no client holds the id or anything was dropped.

    \b
    Examples:
      triorelay send B hello
      tar c . | triorelay send --wait 10 B -
      triorelay send --message B '{"left": 30}'
    """

    async def work() -> None:
        async with options.open(strict=True) as client, beside(discard, client):
            report_id(options, client, "sending")
            await wait_joined(client, destination, wait)
            there = is_there(client, destination)
            if message:
                sent = await _send_messages(client, destination, text)
            elif text == "-":
                sent = await _send_standard_input(client, destination)
            else:
                sent = len(text)
                await client.send(destination, os.fsencode(text))
            await client.flush()
            if not (there or sent):  # the relay reports lost frames only
                raise NotDelivered(id_text(destination), EventCode.NO_ROUTE)

    with explaining_no_route(destination, wait):
        run(work)


@contextmanager
def explaining_no_route(id: int, wait: float | None) -> Iterator[None]:
    """End a command that found no client with this id with a line that says how to wait for one."""
    try:
        yield
    except NotDelivered as error:
        if error.code != EventCode.NO_ROUTE:
            raise
        hint = "; --wait SECONDS waits until one does" if wait is None else ""
        raise click.ClickException(f"no client holds the id {id_name(id)}{hint}") from None


async def _send_messages(client: Client, destination: int, text: str) -> int:
    """Send `text` as one message, or each line of standard input as one; return how many there were."""
    sent = 0
    async with client.messages() as channel:
        if text != "-":
            await channel.send(destination, os.fsencode(text))
            return 1
        async for line in lines_of_standard_input(channel.limit):
            await channel.send(destination, line)
            sent += 1
    return sent


async def lines_of_standard_input(limit: int = CHUNK) -> AsyncIterator[bytes]:
    """Yield the lines of standard input, of at most `limit` bytes, without their ends; the last one may have none."""
    rest = b""
    async for chunk in read_standard_input():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > limit:
            raise click.ClickException(f"a line of standard input is longer than a message may be: {limit} bytes")
    if rest:
        yield rest


async def _send_standard_input(client: Client, destination: int) -> int:
    """Send standard input, with a progress bar on a terminal; return how many bytes it had."""
    sent = 0
    if not sys.stderr.isatty():
        async for chunk in read_standard_input():
            await client.send(destination, chunk)
            sent += len(chunk)
        return sent
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    # The size is known if standard input is a file.
    size = os.fstat(sys.stdin.fileno()).st_size or None
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=size)
        async for chunk in read_standard_input():
            await client.send(destination, chunk)
            sent += len(chunk)
            progress.update(bar, completed=sent)
    return sent


@click.command()
@click.argument("wanted", type=ID, required=False, shell_complete=complete_peer)
@click.option("--watch", is_flag=True, help="Keep running, and print which clients join and leave.")
@click.option("--reconnect", is_flag=True, help="With --watch: continue after the relay was restarted.")
@client_options
def who(options: RelayOptions, wanted: int | None, watch: bool, reconnect: bool) -> None:
    """Print the ids of the connected clients, one a line. With WANTED, end with 0 if it is connected, with 1 if not.

    It shows how many clients share an id if the admin endpoint is beside the relay's Unix socket.

    \b
    Examples:
      triorelay who
      triorelay who B && echo B is connected
    """
    if reconnect and not watch:
        raise click.UsageError("--reconnect goes with --watch")

    async def work() -> bool:
        async with options.open(observer=True, reconnect=reconnect) as client:
            there = set(map(id_byte, client.peers))
            shown = there if options.id is None else there | {options.id}
            if wanted is None or watch:
                status = await status_beside(options.relay)
                for id in sorted(shown):
                    if wanted in (None, id):
                        sharing = "" if status is None else status.sharing(id)
                        click.echo(f"{id_name(id)} ({sharing})" if sharing else id_name(id))
            if not watch:
                return wanted is None or wanted in shown
            async for joined, id in presence_changes(client, there):
                if wanted in (None, id):
                    click.echo(f"{'+' if joined else '-'} {id_name(id)}")
        return True

    if not run(work):
        raise SystemExit(1)


async def status_beside(relay: Address) -> "Status | None":
    """Return the relay's status, from the admin endpoint beside a Unix socket; None without one."""
    if isinstance(relay, UnixAddress):
        from ._admin_client import AdminError, Endpoint

        with suppress(AdminError, ValueError):
            return await Endpoint(UnixAddress(f"{relay.path}.admin")).status()
    return None


@click.command()
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="COUNT", help="End after so many. Default: Ctrl-C.")
@click.option("--interval", type=Seconds(min=0), default=1.0, show_default=True, metavar="SECONDS", help="Between two.")
@client_options
def ping(options: RelayOptions, count: int | None, interval: float) -> None:
    """Measure round trips to the relay.

    \b
    Examples:
      triorelay ping -n 5
    """
    times: list[float] = []

    async def work() -> None:
        async with options.open(observer=True) as client:
            while count is None or len(times) < count:
                if times:
                    await trio.sleep(interval)
                times.append(await client.ping())
                click.echo(f"{options.relay}: {1000 * times[-1]:.3f} ms")

    try:
        run(work)
    finally:
        if times:
            low, middle, high = (1000 * one for one in (min(times), statistics.median(times), max(times)))
            click.echo(f"{len(times)} round trips, min/median/max {low:.3f}/{middle:.3f}/{high:.3f} ms")


@click.command()
@click.option("--seconds", type=Seconds(min=0.1, max=60), default=2.0, show_default=True, help="Of each part.")
@client_options
def bench(options: RelayOptions, seconds: float) -> None:
    """Measure latency and throughput between two clients of this command over the relay.

    Both clients run in this process, which for a fast relay is the slower part.

    \b
    Examples:
      triorelay bench
      triorelay bench --relay otherhost:9734 --seconds 10
    """

    async def work() -> None:
        async with options.open() as first, replace(options, id=None).open() as second:
            trips = await _round_trips(first, second, seconds)
            rate = await _throughput(first, second, seconds)
        trips.sort()
        median, late = statistics.median(trips), trips[int(0.99 * len(trips))]
        click.echo(f"{options.relay}")
        click.echo(f"round trip, median  {1e6 * median:>10.0f} us")
        click.echo(f"round trip, p99     {1e6 * late:>10.0f} us")
        click.echo(f"round trips         {len(trips):>10}")
        click.echo(f"throughput          {rate / 1e6:>10.1f} M frames/s")

    run(work)


async def _round_trips(first: Client, second: Client, seconds: float) -> list[float]:
    trips: list[float] = []

    async def answer() -> None:
        async for source, data in second:
            await second.send(source, data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        end = trio.current_time() + seconds
        while (start := trio.current_time()) < end:
            await first.send(second.id, b"x")
            await first.receive()
            trips.append(trio.current_time() - start)
        nursery.cancel_scope.cancel()
    return trips


async def _throughput(first: Client, second: Client, seconds: float) -> float:
    received = 0

    async def send() -> None:
        while True:
            await first.send(second.id, BLOCK)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        # From the first arrival on; the figure counts what arrives, also with a relay that drops frames.
        await second.receive()
        start = trio.current_time()
        while (now := trio.current_time()) < start + seconds:
            received += len((await second.receive())[1])
        nursery.cancel_scope.cancel()
    return received / (now - start)
