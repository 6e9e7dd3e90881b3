"""JetStream's table of keys, on a real server: compare-and-set, what a watch tells, and what it does not get over."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cluster.nats.test_connection import connected
from tests.cluster.nats_server import NatsServer
from triorelay.cluster import EngineAway
from triorelay.cluster.nats._bucket import Bucket
from triorelay.cluster.nats._protocol import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from triorelay.cluster.nats._connection import Connection

pytestmark = pytest.mark.needs("nats-server")

LEASE = 5.0
Change = tuple[str, bytes | None, int]


@asynccontextmanager
async def opened(server: NatsServer, lease: float = LEASE) -> AsyncIterator[tuple[Bucket, Connection]]:
    """A bucket, and its connection."""
    async with connected(server.url) as connection:
        bucket = Bucket(connection, "test", lease)
        await bucket.open()
        yield bucket, connection


class Watch:
    """The changes that a watch reported."""

    def __init__(self) -> None:
        self._put, self.changes = trio.open_memory_channel[Change](1000)
        self.caught_up = trio.Event()

    def changed(self, key: str, value: bytes | None, revision: int) -> None:
        self._put.send_nowait((key, value, revision))


async def test_a_key_is_created_once(any_nats: NatsServer) -> None:
    async with opened(any_nats) as (one, _), opened(any_nats) as (two, _):
        revision = await one.create("a", b"1")
        assert revision
        assert await two.create("a", b"2") == 0
        assert await two.read("a") == (b"1", revision)
        assert await two.read("b") is None


async def test_a_key_is_updated_and_deleted_by_its_revision_alone(any_nats: NatsServer) -> None:
    async with opened(any_nats) as (bucket, _):
        first = await bucket.create("a", b"1")
        second = await bucket.update("a", b"2", first)
        assert second > first
        assert await bucket.update("a", b"3", first) == 0
        await bucket.delete("a", first)
        assert await bucket.read("a") == (b"2", second)
        await bucket.delete("a", second)
        assert await bucket.read("a") is None
        assert await bucket.update("a", b"4", second) == 0
        third = await bucket.create("a", b"5")
        assert third > second
        assert await bucket.read("a") == (b"5", third)


async def test_a_key_that_is_not_written_runs_out(any_nats: NatsServer) -> None:
    async with opened(any_nats, 0.5) as (bucket, _):
        first = await bucket.create("a", b"1")
        while await bucket.read("a") is not None:  # noqa: ASYNC110 - nothing tells that a key ran out
            await trio.sleep(0.05)
        assert await bucket.update("a", b"2", first) == 0
        assert await bucket.create("a", b"3") > first


async def test_a_watch_reports_the_existing_keys_and_then_every_change(any_nats: NatsServer) -> None:
    async with opened(any_nats) as (one, _), opened(any_nats) as (two, _):
        first = await one.create("a", b"1")
        second = await one.create("b", b"2")
        third = await one.update("b", b"3", second)
        watch = Watch()
        await two.watch(watch.changed, watch.caught_up.set)
        await watch.caught_up.wait()
        assert [watch.changes.receive_nowait() for _ in range(2)] == [("a", b"1", first), ("b", b"3", third)]
        for number in range(100):
            third = await one.update("b", b"%d" % number, third)
            assert await watch.changes.receive() == ("b", b"%d" % number, third)
        await one.delete("a", first)
        assert await watch.changes.receive() == ("a", None, third + 1)
        two.check_heard()


async def test_a_watch_of_an_empty_bucket_has_caught_up_at_once(any_nats: NatsServer) -> None:
    async with opened(any_nats) as (bucket, _):
        watch = Watch()
        await bucket.watch(watch.changed, watch.caught_up.set)
        await watch.caught_up.wait()


async def test_a_watch_that_falls_silent_ends_the_connection(any_nats: NatsServer) -> None:
    async with opened(any_nats, 0.5) as (bucket, connection):
        watch = Watch()
        await bucket.watch(watch.changed, watch.caught_up.set)
        await bucket.create("a", b"1")
        await watch.changes.receive()
        async with connected(any_nats.url) as other:
            names = await other.request("$JS.API.CONSUMER.NAMES.KV_test")
            (name,) = json.loads(bytes(names.payload))["consumers"]
            await other.request(f"$JS.API.CONSUMER.DELETE.KV_test.{name}")
        while not connection.ended:
            bucket.check_heard()
            await trio.sleep(0.05)
        assert connection.ended == "it reports no changes any more"


async def test_a_gap_in_what_a_watch_tells_ends_the_connection(any_nats: NatsServer) -> None:
    async with opened(any_nats) as (bucket, connection):
        watch = Watch()
        await bucket.watch(watch.changed, watch.caught_up.set)
        reply = "$JS.ACK.KV_test.x.1.9.2.0.0"
        bucket._take(Message(1, "$KV.test.a", reply, b"", memoryview(b"")))
        assert connection.ended == "it did not report all changes"


async def test_a_bucket_of_other_settings_is_not_used(any_nats: NatsServer) -> None:
    async with opened(any_nats, 5) as (_, connection):
        with pytest.raises(EngineAway, match="its bucket test keeps 64 changes for 5 s, not 64 for 6 s"):
            await Bucket(connection, "test", 6).open()


async def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    with NatsServer(tmp_path, streams=False) as server:
        async with connected(server.url) as connection:
            with pytest.raises(EngineAway, match="it has no JetStream"):
                await Bucket(connection, "test", LEASE).open()
