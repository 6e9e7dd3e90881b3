"""`triorelay bench`: the speed of a relay, measured from this process."""

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ._client_options import RelayOptions, client_options
from ._options import Seconds, run

if TYPE_CHECKING:
    from ..client import Client

BLOCK = bytes(range(256)) * 1024
"""What throughput is measured with: 256 KiB of data, 512 KiB of frames."""


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


async def _round_trips(first: "Client", second: "Client", seconds: float) -> list[float]:
    import trio

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


async def _throughput(first: "Client", second: "Client", seconds: float) -> float:
    import trio

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
