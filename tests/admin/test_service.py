"""Listening, and how many may be connected."""

from __future__ import annotations

import gc
import logging
import pickle
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.admin.endpoint import PATIENCE, TOKEN, Endpoint, open_endpoint
from triorelay.admin import Admin, AdminConfig
from triorelay.admin._service import SESSIONS, STREAMS
from triorelay.relay import Config, ConfigError, TcpAddress, UnixAddress, serve


async def test_it_serves_beside_a_relay_until_the_drain_is_done(tmp_path: Path) -> None:
    admin = Admin(AdminConfig(address=UnixAddress(f"{tmp_path}/s.admin")))
    config = Config(unix=(f"{tmp_path}/s",))
    async with trio.open_nursery() as nursery:
        relay = await nursery.start(lambda task_status: serve(config, services=[admin], task_status=task_status))
        assert admin.addresses == [f"unix:{tmp_path}/s.admin"]
        async with await trio.open_unix_socket(f"{tmp_path}/s") as client:
            await client.send_all(b"A\x81")
            assert await client.receive_some() == b"A\0"
            relay.drain()
            assert await client.receive_some() == b""
            async with await trio.open_unix_socket(f"{tmp_path}/s.admin") as asking:
                await asking.send_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await asking.receive_some()).startswith(b"HTTP/1.1 503 ")
    assert not await trio.Path(tmp_path, "s.admin").exists()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_an_address_in_use_is_one_line_that_says_so(tmp_path: Path, kind: str) -> None:
    address = UnixAddress(f"{tmp_path}/s.admin") if kind == "unix" else None
    async with open_endpoint(address) as endpoint:
        second = Admin(AdminConfig(address=endpoint.address))
        with pytest.raises(ConfigError, match=r"^the admin endpoint: .* in use") as raised:
            await second.run(endpoint.relay)
        assert "\n" not in str(raised.value)
        assert (await endpoint.fetch("/healthz")).status == 200


async def test_the_log_says_once_where_it_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "triorelay"):
        async with open_endpoint() as endpoint:
            pass
    lines = [record.fields for record in caplog.records if record.getMessage() == "admin listens"]  # type: ignore[attr-defined]
    assert isinstance(endpoint.address, TcpAddress)
    place = f"127.0.0.1:{endpoint.address.port}"
    assert lines == [{"listening": [f"tcp:{place}"], "dashboard": f"http://{place}/"}]


async def test_silent_sessions_keep_no_client_out(endpoint: Endpoint) -> None:
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(endpoint.connect()) for _ in range(SESSIONS + 3)]
        assert (await endpoint.fetch("/healthz")).status == 200
        # Three more than there is room for, and the one that asked.
        for connection in silent[:4]:
            assert await connection.closed()
        await silent[-1].send("GET", "/healthz")
        assert (await silent[-1].reply()).status == 200


async def test_streams_are_bounded_and_leave_room_for_requests(endpoint: Endpoint) -> None:
    async with AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(endpoint.follow("/events")) for _ in range(STREAMS)]
        for path in ("/events", "/monitor"):
            refused = await endpoint.fetch(path)
            assert (refused.status, list(refused.json())) == (503, ["error"])
        for _ in range(2 * SESSIONS):
            await stack.enter_async_context(endpoint.connect())
        assert (await endpoint.fetch("/healthz")).status == 200
        # None of them had to give way: they see what happens now.
        async with endpoint.client("B"):
            for viewer in viewers:
                assert (await viewer.event_named("joined"))["name"] == "B"
    async with endpoint.client("A"):
        while (await endpoint.fetch("/monitor", method="HEAD")).status == 503:
            pass


async def test_connections_that_are_being_answered_are_evicted_after_those_that_wait(endpoint: Endpoint) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    async with AsyncExitStack() as stack:
        # The oldest session of all has its head, and waits for the body.
        busy = await stack.enter_async_context(endpoint.connect())
        await busy.stream.send_all(head)
        assert (await busy.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        waiting = [await stack.enter_async_context(endpoint.connect()) for _ in range(SESSIONS + 3)]
        assert (await endpoint.fetch("/healthz")).status == 200
        for connection in waiting[:5]:
            assert await connection.closed()
        await busy.stream.send_all(b"x")
        assert (await busy.stream.receive_some()).startswith(b"HTTP/1.1 405 ")


async def test_a_place_is_free_again_once_a_session_ended(endpoint: Endpoint) -> None:
    for _ in range(2 * SESSIONS):
        assert (await endpoint.fetch("/healthz", ("Connection", "close"))).status == 200


async def test_a_probe_is_answered_among_halves_of_requests(endpoint: Endpoint) -> None:
    assert isinstance(endpoint.address, TcpAddress)
    flood = [sys.executable, str(Path(__file__).with_name("half_requests.py")), str(endpoint.address.port)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, flood, stdout=subprocess.PIPE))
        # It is under way once it has opened more than there is room for.
        await process.stdout.receive_some(1)
        for _ in range(10):
            with trio.fail_after(PATIENCE):
                assert (await endpoint.fetch("/healthz", ("Connection", "close"))).status == 200
        nursery.cancel_scope.cancel()


async def test_a_waiting_connection_of_the_most_crowded_address_is_evicted_first(endpoint: Endpoint) -> None:
    assert isinstance(endpoint.address, TcpAddress)
    port = endpoint.address.port
    async with AsyncExitStack() as stack:

        async def connect(source: str) -> trio.SocketStream:
            stream = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
            return await stack.enter_async_context(stream)

        alone = await connect("127.0.0.7")
        for _ in range(2 * SESSIONS):
            await connect("127.0.0.8")
        assert (await endpoint.fetch("/healthz")).status == 200
        await alone.send_all(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert (await alone.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_only_the_digest_of_a_token_is_kept(token_file: Path) -> None:
    admin = Admin(AdminConfig(address=UnixAddress("s"), token_file=token_file))
    gc.collect()
    kept = [one for one in gc.get_referents(admin.__dict__, *admin.__dict__.values()) if one == TOKEN.encode()]
    assert kept == []
    assert TOKEN.encode() not in pickle.dumps(admin._configs)


async def test_one_endpoint_listens_at_several_addresses_each_with_its_own_proof(
    tmp_path: Path, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unix = AdminConfig(address=UnixAddress(f"{tmp_path}/s.admin"))
    guarded = AdminConfig(address=TcpAddress("127.0.0.1", 0), token_file=token_file)
    admin = Admin(unix, guarded)
    async with trio.open_nursery() as nursery:
        with caplog.at_level(logging.INFO, "triorelay"):
            config = Config(unix=(f"{tmp_path}/s",))
            await nursery.start(lambda task_status: serve(config, services=[admin], task_status=task_status))
        assert admin.addresses[0] == f"unix:{tmp_path}/s.admin"
        port = int(admin.addresses[1].rpartition(":")[2])
        (line,) = (record.fields for record in caplog.records if record.getMessage() == "admin listens")  # type: ignore[attr-defined]
        assert line == {"listening": admin.addresses, "dashboard": f"http://127.0.0.1:{port}/"}
        for stream, status in (
            (await trio.open_unix_socket(f"{tmp_path}/s.admin"), b"200"),
            (await trio.open_tcp_stream("127.0.0.1", port), b"401"),
        ):
            async with stream:
                await stream.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + status)
        nursery.cancel_scope.cancel()
