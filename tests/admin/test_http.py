"""One connection: what it may cost, and how it ends. Times are the mock clock's."""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.admin.endpoint import PATIENCE, Connection, Endpoint
from triorelay.admin._http import (
    BODY_BYTES,
    HEADER_BYTES,
    LINGER_SECONDS,
    REQUEST_SECONDS,
    SEND_SECONDS,
    HttpSession,
)
from triorelay.admin._messages import Reply, Request, Stream
from triorelay.admin._pace import Pace
from triorelay.admin._service import BUG_SECONDS, BUGS_AT_ONCE
from triorelay.relay import Throttle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from triorelay.admin._messages import Send

End = trio.StapledStream[Any, Any]
Pair = tuple[End, End]
EMPTY = Reply(b"{}")
HELLO = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A session over memory, and the client's end of it."""

    def __init__(self, nursery: trio.Nursery, pair: Pair, reply: Reply | Stream) -> None:
        def answer(request: Request) -> Reply | Stream:
            self.requests.append(request)
            return reply

        self.client = pair[0]
        self.connection = Connection(pair[0])
        self.requests: list[Request] = []
        self.ended = trio.Event()
        self._begun = trio.current_time()
        self._session = HttpSession(pair[1], answer, Pace(), Throttle())
        nursery.start_soon(self._run)

    @property
    def age(self) -> float:
        return trio.current_time() - self._begun

    async def _run(self) -> None:
        await self._session.run()
        self.ended.set()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Served]]:
    """A function that serves one connection with one reply to everything."""
    async with trio.open_nursery() as nursery:

        def start(reply: Reply | Stream = EMPTY, *, lockstep: bool = False) -> Served:
            pair = trio.testing.lockstep_stream_pair() if lockstep else trio.testing.memory_stream_pair()
            return Served(nursery, pair, reply)

        yield start
        nursery.cancel_scope.cancel()


async def test_a_connection_carries_one_request_and_its_reply_says_so(serve: Callable[..., Served]) -> None:
    served = serve()
    await served.client.send_all(b"GET /one?x HTTP/1.1\r\nHost: x\r\n\r\n" + HELLO)
    reply = await served.connection.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await served.connection.closed()
    assert [(request.path, request.query) for request in served.requests] == [("/one", "x")]


async def test_a_request_may_come_byte_by_byte(serve: Callable[..., Served]) -> None:
    served = serve()
    for at in range(len(HELLO)):
        await served.client.send_all(HELLO[at : at + 1])
    assert (await served.client.receive_some()).endswith(b"\r\n\r\n{}")
    assert len(served.requests) == 1


async def test_a_silent_connection_is_closed_without_an_answer(
    autojump_clock: MockClock, serve: Callable[..., Served]
) -> None:
    served = serve()
    assert await served.connection.closed()
    assert served.age <= REQUEST_SECONDS + LINGER_SECONDS


async def test_a_slow_request_gets_an_answer_even_if_more_input_comes(
    autojump_clock: MockClock, serve: Callable[..., Served]
) -> None:
    served = serve()

    async def drip() -> None:
        with suppress(trio.BrokenResourceError):
            for byte in b"GET / HTTP/1.1\r\nX: " + 1000 * b"y":
                await served.client.send_all(bytes((byte,)))
                await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        got = await _reply_to_nothing(served)
        assert got == (408, ["error"])
        assert served.age <= REQUEST_SECONDS + 1
        await served.ended.wait()
        assert served.age <= REQUEST_SECONDS + LINGER_SECONDS + 1
        nursery.cancel_scope.cancel()


async def test_a_body_that_does_not_come_is_not_waited_for(
    autojump_clock: MockClock, serve: Callable[..., Served]
) -> None:
    served = serve()
    await served.client.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    assert await _reply_to_nothing(served) == (408, ["error"])
    assert served.requests == []


async def test_a_small_body_is_read_and_forgotten(serve: Callable[..., Served]) -> None:
    served = serve()
    await served.connection.send("POST", "/", body=b"x" * BODY_BYTES)
    assert (await served.connection.reply()).status == 200
    assert await served.connection.closed()


async def test_a_client_that_waits_for_100_continue_gets_it(serve: Callable[..., Served]) -> None:
    served = serve()
    await served.client.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
    assert b"100 " in await served.client.receive_some()
    await served.client.send_all(b"x")
    assert b" 200 OK" in await served.client.receive_some()


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\nExpect: 100-continue\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n" + b"x" * 8192,
    ],
)
async def test_a_large_body_is_refused_before_it_is_read(serve: Callable[..., Served], request_: bytes) -> None:
    served = serve()
    await served.client.send_all(request_)
    assert await _reply_to_nothing(served) == (413, ["error"])
    await served.client.send_eof()
    await served.ended.wait()
    assert served.requests == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (HEADER_BYTES + 1), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
async def test_what_is_no_request_gets_an_error(serve: Callable[..., Served], sent: bytes, status: int) -> None:
    served = serve()
    await served.client.send_all(sent)
    got, keys = await _reply_to_nothing(served)
    assert (got, keys) == (status, ["error"])
    await served.client.send_eof()
    await served.ended.wait()


async def test_a_reply_that_is_not_taken_ends_the_session(
    autojump_clock: MockClock, serve: Callable[..., Served]
) -> None:
    served = serve(lockstep=True)
    await served.client.send_all(HELLO)
    await served.ended.wait()
    assert served.age <= SEND_SECONDS + LINGER_SECONDS


async def test_a_stream_ends_when_its_reader_leaves(serve: Callable[..., Served]) -> None:
    cancelled = trio.Event()

    async def run(send: Send) -> None:
        try:
            await send(b"first")
            await trio.sleep_forever()
        finally:
            cancelled.set()

    served = serve(Stream(run, "text/plain"))
    await served.connection.send("GET", "/")
    await served.connection.head()
    await served.client.aclose()
    await cancelled.wait()
    await served.ended.wait()


async def test_a_stream_to_a_reader_that_takes_nothing_ends(
    autojump_clock: MockClock, serve: Callable[..., Served]
) -> None:
    async def run(send: Send) -> None:
        while True:
            await send(b"x")

    served = serve(Stream(run, "text/plain"), lockstep=True)
    await served.client.send_all(HELLO)
    await served.client.receive_some()
    await served.ended.wait()
    assert served.age <= SEND_SECONDS + LINGER_SECONDS + 1


async def test_a_stream_that_is_cancelled_still_ends_as_the_protocol_wants_it(serve: Callable[..., Served]) -> None:
    scope = trio.CancelScope()

    async def run(send: Send) -> None:
        await send(b"first")
        with scope:
            await trio.sleep_forever()

    served = serve(Stream(run, "text/plain"))
    await served.connection.send("GET", "/")
    trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
    assert (await served.connection.reply()).body == b"first"


async def test_a_client_of_http_1_0_is_served(serve: Callable[..., Served]) -> None:
    served = serve()
    await served.client.send_all(b"GET / HTTP/1.0\r\n\r\n")
    got = b"".join([part async for part in served.client])
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\n{}")


async def test_a_refusal_survives_what_was_sent_and_never_read(endpoint: Endpoint) -> None:
    async with endpoint.connect() as connection:
        head = b"POST /clients/A/close HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        await connection.stream.send_all(head % (1 << 20) + bytes(65536))
        # A connection that is closed with unread input is reset.
        reply = b"".join([part async for part in connection.stream])
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert json.loads(reply.partition(b"\r\n\r\n")[2]).keys() == {"error"}


async def test_the_bound_of_a_head_is_ours(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triorelay.admin._http.HEADER_BYTES", 1000)
    # A head that has come whole is bounded by what is read at once.
    for size, end, status in ((500, b"\r\n\r\n", 200), (1000, b"", 431)):
        served = serve()
        await served.client.send_all(b"GET / HTTP/1.0\r\nX: " + size * b"y" + end)
        assert (await served.client.receive_some()).startswith(b"HTTP/1.1 %d " % status)


async def test_answers_leave_nine_tenths_of_the_time_to_the_relay(autojump_clock: MockClock) -> None:
    begun: list[float] = []

    def answer(_: Request) -> Reply:
        begun.append(trio.current_time())
        until = time.perf_counter() + 0.01
        while time.perf_counter() < until:
            pass
        return EMPTY

    pace = Pace()
    async with trio.open_nursery() as nursery:
        clients = []
        for _ in range(3):
            client, server = trio.testing.memory_stream_pair()
            nursery.start_soon(HttpSession(server, answer, pace, Throttle()).run)
            await client.send_all(HELLO)
            clients.append(client)
        for client in clients:
            await client.receive_some()
        nursery.cancel_scope.cancel()
    assert all(later - earlier >= 0.09 for earlier, later in pairwise(begun))


async def test_100_megabytes_sent_during_congestion_harm_no_other(endpoint: Endpoint) -> None:
    piece = bytes(1 << 20)
    async with endpoint.connect() as connection, trio.open_nursery() as nursery:

        async def send() -> None:
            head = b"POST /clients/A/close HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            with suppress(trio.BrokenResourceError):
                await connection.stream.send_all(head % (100 * len(piece)))
                for _ in range(100):
                    await connection.stream.send_all(piece)

        nursery.start_soon(send)
        assert (await endpoint.fetch("/healthz")).status == 200
        head = await connection.stream.receive_some()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert json.loads(head.partition(b"\r\n\r\n")[2]).keys() == {"error"}


async def _break_off(connection: Connection) -> None:
    stream = connection.stream
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /status HTTP/1.1\r\nHost: ",
        b"POST /clients/A/close HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        b"POST /clients/A/close HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    ],
    ids=["nothing", "half a head", "no body", "100-continue"],
)
async def test_a_client_that_breaks_off_in_a_request_is_no_bug(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    ended = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await HttpSession(stream, lambda _: EMPTY, Pace(), Throttle()).run()
        ended.set()

    nursery.start_soon(trio.serve_listeners, serve, listeners)
    connection = Connection(await trio.open_tcp_stream(*listeners[0].socket.getsockname()))
    await connection.stream.send_all(sent)
    if b"Expect" in sent:
        assert (await connection.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
    await wait_all_tasks_blocked()
    await _break_off(connection)
    with trio.fail_after(PATIENCE):
        await ended.wait()
    assert not caplog.records


async def test_a_repeated_bug_does_not_flood_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bugs = Throttle(interval=BUG_SECONDS, burst=BUGS_AT_ONCE)

    def find(times: int) -> list[dict[str, int]]:
        caplog.clear()
        for _ in range(times):
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                bugs.bug(error, "bug in the admin endpoint")
        assert all(record.exc_info for record in caplog.records)
        return [record.fields for record in caplog.records]  # type: ignore[attr-defined]

    assert find(100) == [{}] * BUGS_AT_ONCE
    autojump_clock.jump(BUG_SECONDS)
    assert find(2) == [{"similar_kept_back": 100 - BUGS_AT_ONCE}]


async def _reply_to_nothing(served: Served) -> tuple[int, list[str]]:
    """The status and the keys of a reply to what h11 would not have sent."""
    reply = bytes(await served.client.receive_some())
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    return int(head.split()[1]), list(json.loads(body))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.0\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: anything at all\r\nUser-Agent: kube-probe/1.31\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    ],
)
async def test_a_probe_needs_no_host_and_may_come_byte_by_byte(endpoint: Endpoint, sent: bytes) -> None:
    async with endpoint.connect() as connection:
        for byte in sent:
            await connection.stream.send_all(bytes([byte]))
        head, _, body = (await connection.stream.receive_some()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b'{"status":"ok"}'


async def test_a_probe_by_head_gets_a_head(endpoint: Endpoint) -> None:
    async with endpoint.connect() as connection:
        await connection.stream.send_all(b"HEAD /readyz HTTP/1.1\r\n\r\n")
        reply = bytes(await connection.stream.receive_some())
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
        assert reply.endswith(b"Content-Length: 18\r\nConnection: close\r\n\r\n")
