"""A connection to a real NATS server: each verb, and each way in which a server, or what is none, can fail."""

from __future__ import annotations

import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.cluster.nats_accounts import make_accounts
from tests.cluster.nats_server import NEWEST, NatsServer
from tests.wire.client import PATIENCE
from triorelay.cluster import EngineAway
from triorelay.cluster.nats import _connection
from triorelay.cluster.nats._connection import CONGESTED, Connection, connect
from triorelay.cluster.nats._credentials import Credentials, read_credentials
from triorelay.cluster.nats._protocol import Message, encode_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.needs("nats-server")


async def read(connection: Connection) -> None:
    """Do what the relay's pump does."""
    while connection.receive():
        await trio.lowlevel.wait_readable(connection.fileno)


@asynccontextmanager
async def connected(url: str, credentials: Credentials | None = None) -> AsyncIterator[Connection]:
    """Connect, read and write for the length of the block, which has a time limit."""
    with trio.fail_after(PATIENCE):
        connection = await connect(url, credentials or Credentials())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.write)
                nursery.start_soon(read, connection)
                yield connection
                nursery.cancel_scope.cancel()
        finally:
            connection.close()


async def refusal(url: str, credentials: Credentials | None = None) -> EngineAway:
    """Return why a connection is refused."""
    with pytest.raises(EngineAway) as caught, trio.fail_after(PATIENCE):
        (await connect(url, credentials or Credentials())).close()
    return caught.value


class Inbox:
    """What came for a subscription."""

    def __init__(self) -> None:
        self._put, self.messages = trio.open_memory_channel[Message](100_000)

    def take(self, message: Message) -> None:
        self._put.send_nowait(message._replace(payload=memoryview(bytes(message.payload))))


async def test_what_is_published_is_received_in_order(any_nats: NatsServer) -> None:
    async with connected(any_nats.url) as one, connected(any_nats.url) as two:
        inbox = Inbox()
        two.subscribe("a.*", inbox.take)
        await two.ping()
        payloads = [bytes((number % 256,)) * (number * 37 % 5000) for number in range(1000)]
        for payload in payloads:
            one.publish("a.b", payload, reply="c", headers=encode_headers({"X": "y"}))
        for payload in payloads:
            message = await inbox.messages.receive()
            assert (message.subject, message.reply, bytes(message.payload)) == ("a.b", "c", payload)
            assert message.headers == b"NATS/1.0\r\nX: y\r\n\r\n"


async def test_a_request_is_answered(any_nats: NatsServer) -> None:
    async with connected(any_nats.url) as one, connected(any_nats.url) as two:
        two.subscribe("double", lambda message: two.publish(message.reply, bytes(message.payload) * 2))
        await two.ping()
        answers: list[bytes] = []

        async def ask(text: bytes) -> None:
            answers.append(bytes((await one.request("double", text)).payload))

        async with trio.open_nursery() as nursery:
            for text in (b"1", b"2", b"3"):
                nursery.start_soon(ask, text)
        assert sorted(answers) == [b"11", b"22", b"33"]
        assert (await one.request("nothing.there")).headers.startswith(b"NATS/1.0 503")


async def test_an_answer_that_comes_late_is_ignored(any_nats: NatsServer) -> None:
    async with connected(any_nats.url) as connection:
        asked = Inbox()
        connection.subscribe("slow", asked.take)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.request, "slow")
                question = await asked.messages.receive()
                scope.cancel()
        connection.publish(question.reply, b"late")
        connection.subscribe("quick", lambda message: connection.publish(message.reply, b"now"))
        assert bytes((await connection.request("quick")).payload) == b"now"


async def test_a_server_that_does_not_read_makes_it_congested_and_then_drains_it(any_nats: NatsServer) -> None:
    async with connected(any_nats.url) as one, connected(any_nats.url) as two:
        inbox, drained = Inbox(), trio.Event()
        two.subscribe("a", inbox.take)
        await two.ping()
        one.drained = lambda *_: drained.set()
        any_nats.signal(signal.SIGSTOP)
        count = 0
        while not one.congested:
            one.publish("a", bytes(CONGESTED))
            count += 1
        any_nats.signal(signal.SIGCONT)
        await drained.wait()
        for _ in range(count):
            assert bytes((await inbox.messages.receive()).payload) == bytes(CONGESTED)


async def test_requests_fail_at_once_when_the_server_is_killed(any_nats: NatsServer) -> None:
    async with connected(any_nats.url) as connection:
        reasons: list[object] = []
        connection.lost = reasons.append
        asked = Inbox()
        connection.subscribe("slow", asked.take)
        failures: list[EngineAway] = []

        async def ask() -> None:
            with pytest.raises(EngineAway) as caught:
                await connection.request("slow")
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await asked.messages.receive()
            any_nats.kill()
        assert [str(failure) for failure in failures] == reasons == [connection.ended]
        with pytest.raises(EngineAway):
            await connection.ping()
        connection.publish("a", b"goes nowhere")


async def test_a_bug_in_a_subscriber_ends_the_connection_alone(
    any_nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(any_nats.url) as connection:

        def fail(message: Message) -> None:
            raise ValueError(message.subject)

        connection.subscribe("a", fail)
        connection.publish("a", b"")
        with pytest.raises(EngineAway, match="ValueError"):
            await connection.ping()
    assert "bug in the cluster" in caplog.text


@pytest.mark.parametrize("program", ["debian", "newest"])
async def test_what_a_user_may_not_do_is_said(program: str, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text(
        'authorization { users = [{ user: a, password: b, permissions: { subscribe: ["x"] } }] }'
    )
    which = "" if program == "debian" else str(NEWEST)
    with NatsServer(tmp_path, "--config", str(tmp_path / "conf"), program=which) as server:
        async with connected(server.url, Credentials({"user": "a", "pass": "b"})) as connection:
            connection.subscribe("y", lambda _: None)
            with pytest.raises(EngineAway, match='Permissions Violation for Subscription to "y"'):
                await connection.ping()


@pytest.mark.parametrize("content", ["a token of good length\n", "relay:a good password\n"])
async def test_a_token_or_a_password_lets_in(content: str, tmp_path: Path) -> None:
    (tmp_path / "right").write_text(content)
    user, colon, password = content.strip().partition(":")
    options = ("--user", user, "--pass", password) if colon else ("--auth", user)
    with NatsServer(tmp_path, *options) as server:
        async with connected(server.url, read_credentials(tmp_path / "right")) as connection:
            await connection.ping()
        refused = await refusal(server.url)
        assert (str(refused), refused.hint) == ("it refuses our credentials", "look into --cluster-credentials")


@pytest.mark.parametrize("program", ["debian", "newest"])
async def test_a_jwt_that_an_nkey_signs_lets_in(program: str, tmp_path: Path) -> None:
    configuration, right = make_accounts(tmp_path)
    which = "" if program == "debian" else str(NEWEST)
    with NatsServer(tmp_path, "--config", str(configuration), program=which) as server:
        async with connected(server.url, read_credentials(right)) as connection:
            await connection.ping()
        assert str(await refusal(server.url)) == "it refuses our credentials"


async def test_credentials_that_cannot_be_right_are_named(tmp_path: Path) -> None:
    _, right = make_accounts(tmp_path)
    (tmp_path / "seedless").write_text(right.read_text().partition("-----BEGIN USER NKEY")[0])
    (tmp_path / "key").write_text("-----BEGIN PRIVATE KEY-----\nabc\n")
    for name, reason in (("none", "cannot read"), ("seedless", "no seed that goes with one"), ("key", "has no JWT")):
        with pytest.raises(EngineAway, match=reason):
            read_credentials(tmp_path / name)


@pytest.mark.parametrize("program", ["debian", "newest"])
async def test_tls_is_used_where_the_address_or_the_server_asks_for_it(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    files = ("--tlscert", str(tmp_path / "server.pem"), "--tlskey", str(tmp_path / "server.pem"))
    which = "" if program == "debian" else str(NEWEST)
    with NatsServer(tmp_path, "--tls", *files, program=which) as server:
        assert str(await refusal(server.url)).startswith("TLS: ")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        for url in (server.url, server.url.replace("nats:", "tls:")):
            async with connected(url) as connection:
                inbox = Inbox()
                connection.subscribe("a", inbox.take)
                payload = bytes(range(256)) * 3000
                for _ in range(20):
                    connection.publish("a", payload)
                for _ in range(20):
                    assert bytes((await inbox.messages.receive()).payload) == payload


async def test_nothing_is_said_in_the_clear_where_the_address_asks_for_tls(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        assert "it offers no TLS" in str(await refusal(server.url.replace("nats:", "tls:")))


@pytest.mark.parametrize(
    "greeting",
    [
        b"INFO []\r\n",
        b"INFO " + b"x" * 100_000 + b"\r\n",
        b"HTTP/1.1 400 Bad\r\n\r\n",
        b'INFO {"max_payload": "x"}\r\n+OK\r\nMSG',
    ],
)
async def test_a_peer_that_is_no_nats_server_is_refused(greeting: bytes) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def greet(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.send_all(greeting)

        nursery.start_soon(trio.serve_listeners, greet, [listener])
        port = listener.socket.getsockname()[1]
        assert str(await refusal(f"nats://127.0.0.1:{port}"))
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "CONNECTING", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "does not answer in time" in str(await refusal(f"nats://127.0.0.1:{listener.getsockname()[1]}"))


async def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert str(await refusal(f"nats://127.0.0.1:{port}")) == "Connection refused"
    assert str(await refusal("nats://a..b:1"))
