"""Containers that are stopped, cut off or killed in the middle of traffic."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import trio

from tests.docker.engine import Ledger, docker, exchange

if TYPE_CHECKING:
    from tests.docker.engine import Site

# Marks are a million frames apart: enough of them, and every queue on the way has been full.
IN_FULL_FLOW = "mark 3"

# A peer that cannot be reached has lost its id after this many seconds, whether it sends or is sent to.
LOST_CABLE = 30

# Each comes at another moment of the relay's start.
STOPS_AT_ONCE = 5


async def test_docker_stop_loses_no_accepted_frame(site: Site) -> None:
    volume, network = await site.volume(), await site.network()
    relay = await site.relay(volume, network)
    watcher = await site.near(volume, "watch")
    sinks = [await site.near(volume, "sink", "B", uid=1002), await site.far(network, relay, "sink", "Q")]
    for name in "BQ":
        await watcher.line(f"JOINED {name}")
    await site.far(network, relay, "flood", "P", "B")
    await site.near(volume, "flood", "A", "Q")
    for sink in sinks:
        await sink.line(IN_FULL_FLOW)
    await docker("stop", relay.name)

    # Status 137 would be the engine's SIGKILL after its ten seconds.
    assert await relay.ended() == 0
    ledger = await relay.ledger()
    results = [await sink.result() for sink in sinks]
    assert ledger.balances()
    assert ledger["queued"] == 0
    assert ledger["written"] == sum(result["received"] for result in results)
    assert [(result["gaps"], result["sources"]) for result in results] == [(0, "P"), (0, "A")]


async def test_a_stop_that_comes_at_once_ends_the_relay_as_any_other(site: Site) -> None:
    for _ in range(STOPS_AT_ONCE):
        relay = await site.run(site.image)
        await docker("kill", "--signal=TERM", relay.name)
        assert await relay.ended() == 0


async def test_a_network_that_is_cut_frees_the_ids_behind_it_and_harms_no_other_client(site: Site) -> None:
    volume, here, there = await site.volume(), await site.network(), await site.network()
    relay = await site.relay(volume, here, there)
    watcher = await site.near(volume, "watch")
    rest = await site.far(here, relay, "sink", "B")
    receiver = await site.far(there, relay, "sink", "P")
    near_sink = await site.near(volume, "sink", "C")
    for name in "BPC":
        await watcher.line(f"JOINED {name}")
    await site.near(volume, "flood", "A", "B")
    await site.near(volume, "flood", "D", "P", uid=1003)
    sender = await site.far(there, relay, "flood", "Q", "C")
    for sink in (rest, receiver, near_sink):
        await sink.line(IN_FULL_FLOW)

    for cut_off in (receiver, sender):
        await docker("network", "disconnect", there, cut_off.name)
    async with trio.open_nursery() as nursery:
        for name in "PQ":
            nursery.start_soon(partial(watcher.line, f"LEFT {name}", patience=LOST_CABLE))
    marks = [line for line in await rest.logs() if line.startswith("mark")]
    await rest.line(f"mark {len(marks) + 3}")

    await docker("stop", relay.name)
    assert (await rest.result())["gaps"] == 0
    assert (await near_sink.result())["gaps"] == 0
    assert (await relay.ledger()).balances()


async def test_a_relay_that_was_killed_takes_its_socket_over_and_serves_again(site: Site) -> None:
    volume, network = await site.volume(), await site.network()
    relay = await site.relay(volume, network)
    watcher = await site.near(volume, "watch")
    await site.echo(relay, network, "E")
    sink = await site.near(volume, "sink", "B", uid=1002)
    for name in "BE":
        await watcher.line(f"JOINED {name}")
    await site.far(network, relay, "flood", "P", "B")
    await sink.line(IN_FULL_FLOW)
    # A killed relay leaves no last line: what it counts while it runs has to balance too.
    first_run = Ledger.of_status(json.loads(await relay.execute("triorelay", "status", "--json")))
    assert first_run.balances()
    await docker("kill", relay.name)
    result = await sink.result()
    assert result["gaps"] == 0
    assert first_run["written"] <= result["received"]

    second_run = (await relay.inspect())["State"]["FinishedAt"]
    await docker("start", relay.name)
    await relay.line(" ready ", since=second_run)
    watcher = await site.near(volume, "watch")
    sink = await site.near(volume, "sink", "B", uid=1002)
    for name in "BE":
        await watcher.line(f"JOINED {name}")
    asking = await site.article_client(volume, "A", "E", "1")
    await watcher.line("JOINED A")
    assert await exchange(asking) == ["E1"]
    await site.far(network, relay, "flood", "P", "B")
    await sink.line(IN_FULL_FLOW)
    await docker("stop", relay.name)
    result = await sink.result()
    ledger = await relay.ledger(since=second_run)
    assert ledger.balances()
    # The two that are not the flood's are the question and its answer.
    assert ledger["written"] == result["received"] + 2
    assert result["gaps"] == 0


async def test_a_new_container_on_the_same_volume_takes_over_without_losing_a_frame(site: Site) -> None:
    volume, network = await site.volume(), await site.network()
    relay = await site.relay(volume, network)
    watcher = await site.near(volume, "watch")
    sink = await site.near(volume, "sink", "B", uid=1002)
    await watcher.line("JOINED B")
    await site.near(volume, "flood", "A", "B")
    await sink.line(IN_FULL_FLOW)
    successor = await site.relay(volume, network, options=("--env", "TRIORELAY_TAKE_OVER=true"))
    await relay.line("handed over sessions=3 ")
    assert await relay.ended() == 0
    marks = [line for line in await sink.logs() if line.startswith("mark")]
    await sink.line(f"mark {len(marks) + 3}")

    await docker("stop", successor.name)
    assert await successor.ended() == 0
    result = await sink.result()
    assert (result["gaps"], result["sources"]) == (0, "A")
    ledger = await successor.ledger()
    assert ledger.balances()
    assert ledger["written"] == result["received"]
