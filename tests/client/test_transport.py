"""Reaching a relay by Unix, TCP and TLS, and not reaching it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
from contextlib import aclosing
from functools import partial
from subprocess import PIPE
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from triorelay.client import Backoff, ConnectionEvent, open_client
from triorelay.client._link import CLOSE_TIMEOUT
from triorelay.client._transport import open_wire
from triorelay.protocol import (
    ConnectionLost,
    HelloRefused,
    LocalProtocolError,
    TcpAddress,
    UnixAddress,
    parse_address,
)
from triorelay.relay import Principal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import trustme

    from tests.client.conftest import Listen, Listening


async def try_to_open(*args: object, **options: object) -> None:
    async with open_client(*args, **options):  # type: ignore[arg-type]
        raise AssertionError("it should not open")


# -- every transport


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
async def test_clients_talk_by_every_transport(listening: Listening, transport: str) -> None:
    context = listening.trusting if transport == "tls" else None
    data = bytes(range(256)) * 4000
    async with (
        open_client(listening.unix, "A") as a,
        open_client(getattr(listening, transport), "B", ssl_context=context) as b,
        trio.open_nursery() as nursery,
    ):
        await a.wait_for("B")
        nursery.start_soon(a.send, "B", data)
        nursery.start_soon(b.send, "A", data[::-1])
        for client, source, expected in ((b, "A", data), (a, "B", data[::-1])):
            received = bytearray()
            while len(received) < len(expected):
                came_from, part = await client.receive()
                assert came_from == source
                received += part
            assert received == expected
        await a.flush()
        assert await b.ping() > 0


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
async def test_what_is_sent_last_arrives(listening: Listening, transport: str) -> None:
    context = listening.trusting if transport == "tls" else None
    data = bytes(range(256)) * 4000
    async with open_client(listening.unix, "B") as b, trio.open_nursery() as nursery:

        async def send_and_leave() -> None:
            async with open_client(getattr(listening, transport), "A", ssl_context=context) as a:
                await a.send("B", data)

        nursery.start_soon(send_and_leave)
        received = bytearray()
        while len(received) < len(data):
            received += (await b.receive())[1]
        assert received == data


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
async def test_a_refusal_is_seen_by_every_transport(listening: Listening, transport: str) -> None:
    context = listening.trusting if transport == "tls" else None
    async with open_client(listening.unix, "A"):
        with pytest.raises(HelloRefused, match="the id is taken"):
            await try_to_open(getattr(listening, transport), "A", ssl_context=context)


async def test_an_idle_tcp_connection_is_probed_and_a_closed_window_forgiven(listening: Listening) -> None:
    host, _, port = listening.tcp.removeprefix("tcp:").rpartition(":")
    wire = await open_wire(TcpAddress(host, int(port)), ssl_context=None, bind_path=None, with_token=False)
    async with aclosing(wire):
        stream = wire._stream
        assert isinstance(stream, trio.SocketStream)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert [stream.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3, 0]


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
async def test_a_connection_is_written_and_read(listening: Listening, transport: str) -> None:
    context = listening.trusting if transport == "tls" else None
    address = parse_address(getattr(listening, transport))
    wire = await open_wire(address, ssl_context=context, bind_path=None, with_token=False)
    async with aclosing(wire):
        await wire.write(b"A\x81")
        assert await wire.read() == b"A\0"


async def test_a_client_comes_back_to_a_relay_that_was_started_again(listen: Listen) -> None:
    first = await listen()
    async with (
        open_client(first.unix, "A", reconnect=Backoff(first=0.01)) as a,
        open_client(first.unix, "B", reconnect=Backoff(first=0.01)) as b,
    ):
        events = a.events()
        first.relay.drain()
        while (await anext(events)).code != ConnectionEvent.LOST:
            pass
        await first.stopped.wait()
        await listen()
        await a.wait_for("B")
        await a.send("B", b"1")
        assert await b.receive() == ("A", b"1")
        await a.flush()


# -- what cannot be reached


async def test_a_path_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await try_to_open(f"unix:{tmp_path}/nowhere", "A")
    assert caught.value.strerror == f"cannot connect to unix:{tmp_path}/nowhere: No such file or directory"


async def test_a_socket_file_without_a_listener(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "left_over"))
    with pytest.raises(ConnectionRefusedError, match=r"cannot connect to unix:.*/left_over: Connection refused"):
        await try_to_open(f"unix:{tmp_path}/left_over", "A")


async def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot connect to unix:x+: AF_UNIX path too long"):
        await try_to_open("x" * 200, "A")


async def test_a_port_without_a_listener() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectionRefusedError, match=f"cannot connect to {address}: Connection refused"):
            await try_to_open(address, "A")


async def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(OSError, match=r"cannot connect to tcp:nowhere.invalid:9734: "):
        await try_to_open("tcp:nowhere.invalid:9734", "A")


async def test_a_certificate_that_is_not_trusted(listening: Listening) -> None:
    with pytest.raises(ConnectionError, match=r"cannot connect to tls:127.0.0.1:\d+: its certificate is not trusted"):
        await try_to_open(listening.tls, "A")


async def test_a_certificate_of_another_host(listening: Listening, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.invalid").configure_cert(context)
    [listener] = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    assert isinstance(listener.transport_listener, trio.SocketListener)
    port = listener.transport_listener.socket.getsockname()[1]

    async def accept() -> None:
        async with await listener.accept() as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.do_handshake()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(ConnectionError, match=r"its certificate is not trusted .*127"):
            await try_to_open(f"tls:127.0.0.1:{port}", "A", ssl_context=listening.trusting)


async def test_tls_spoken_to_a_plain_port(listening: Listening) -> None:
    with pytest.raises(ConnectionError, match=r"cannot connect to tls:127.0.0.1"):
        await try_to_open(listening.tcp.replace("tcp", "tls"), "A", ssl_context=listening.trusting)


async def test_a_plain_client_at_a_tls_port(listen: Listen) -> None:
    listening = await listen(hello_timeout=0.2)
    with pytest.raises(ConnectionLost):
        await try_to_open(listening.tls.replace("tls", "tcp"), "A")


async def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "busy"))

    async def connect_and_speak() -> None:
        async with aclosing(await open_wire(address, ssl_context=None, bind_path=None, with_token=False)) as wire:
            await wire.write(b"1")

    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(address.path)
    sock.listen(0)
    async with trio.SocketListener(sock) as listener, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(connect_and_speak)
        await wait_all_tasks_blocked()
        for _ in range(5):
            async with await listener.accept() as stream:
                assert await stream.receive_some() == b"1"


# -- tokens


async def test_a_token_is_not_sent_in_the_clear_to_another_host(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triorelay.client._transport._is_loopback", lambda stream: False)
    with pytest.raises(LocalProtocolError, match=r"a token is not sent over plain TCP to another host: use tls:127"):
        await try_to_open(listening.tcp, "A", token="secret")
    assert not listening.relay.ledger.control


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
async def test_a_token_proves_the_identity_of_a_client(listen: Listen, tmp_path: Path, transport: str) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("a token of some length")
    listening = await listen(principals=(Principal(name="arm", token_file=token_file, ids=frozenset(b"A")),))
    context = listening.trusting if transport == "tls" else None
    address = getattr(listening, transport)
    async with open_client(address, "A", token="a token of some length", ssl_context=context) as arm:
        assert arm.id == "A"
    with pytest.raises(HelloRefused, match="authentication required or failed"):
        await try_to_open(address, "A", token="another one of that length", ssl_context=context)


# -- the article's way


async def test_a_bound_path_is_the_id(listening: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_client(listening.unix, "B") as b:
        async with open_client(listening.unix, "A", identity="bind") as a:
            assert a.id == "A"
            assert (tmp_path / "A").is_socket()
            await b.wait_for("A")
            await a.send("B", b"123")
            assert await b.receive() == ("A", b"123")
            await b.send("A", b"4")
            assert await a.receive() == ("B", b"4")
        assert not (tmp_path / "A").exists()


async def test_a_path_may_be_bound_anywhere(listening: Listening, tmp_path: Path) -> None:
    path = tmp_path / "Arm"
    async with open_client(listening.unix, "A", identity="bind", bind_path=str(path)) as a:
        await a.send("A", b"1")
        assert await a.receive() == ("A", b"1")
        assert path.is_socket()
    assert not path.exists()


async def test_a_dot_is_bound_by_a_longer_name(listening: Listening, tmp_path: Path) -> None:
    async with open_client(listening.unix, ".", identity="bind", bind_path=str(tmp_path / ".name")) as dot:
        await dot.send(".", b"1")
        assert await dot.receive() == (".", b"1")


async def test_a_bound_id_may_be_any_byte(
    listening: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_client(listening.unix, 0xE9, identity="bind") as a:
        await a.send(0xE9, b"1")
        assert await a.receive() == ("\xe9", b"1")
        assert os.listdir(b".").count(b"\xe9") == 1


async def test_a_path_that_exists_is_left_alone(listening: Listening, tmp_path: Path) -> None:
    (tmp_path / "A").write_text("mine")
    with pytest.raises(OSError, match=r"cannot bind .*/A: it exists; remove it if no client") as caught:
        await try_to_open(listening.unix, "A", identity="bind", bind_path=str(tmp_path / "A"))
    assert caught.value.errno == errno.EADDRINUSE
    assert (tmp_path / "A").read_text() == "mine"


async def test_a_path_that_another_program_replaced_is_left_alone(listening: Listening, tmp_path: Path) -> None:
    path = tmp_path / "A"
    async with open_client(listening.unix, "A", identity="bind", bind_path=str(path)):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


async def test_a_path_that_is_gone_already_is_not_missed(listening: Listening, tmp_path: Path) -> None:
    path = tmp_path / "A"
    async with open_client(listening.unix, "A", identity="bind", bind_path=str(path)):
        path.unlink()


async def test_a_bound_path_is_removed_if_no_server_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await try_to_open(f"{tmp_path}/nowhere", "A", identity="bind", bind_path=str(tmp_path / "A"))
    assert not (tmp_path / "A").exists()


async def test_a_bound_path_has_no_events(listening: Listening, tmp_path: Path) -> None:
    async with open_client(listening.unix, "A", identity="bind", bind_path=str(tmp_path / "A")) as a:
        for call in (a.flush, a.ping, partial(a.wait_for, "B")):
            with pytest.raises(LocalProtocolError, match="open it with identity='hello'"):
                await call()
        for claim in (a.events, partial(a.stream, "B"), lambda: a.peers):
            with pytest.raises(LocalProtocolError, match="open it with identity='hello'"):
                claim()
        async with a.messages() as messages:
            await messages.send("A", b"to myself")
            assert await messages.receive() == ("A", b"to myself")


async def test_a_bound_client_does_not_wait_long_for_a_server_that_sends_no_end_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triorelay.client._session.BOUND_PATIENCE", 0.01)
    server = trio.socket.socket(socket.AF_UNIX)
    await server.bind(str(tmp_path / "server_socket"))
    server.listen()
    with server, trio.fail_after(CLOSE_TIMEOUT / 2):
        async with open_client(
            str(tmp_path / "server_socket"), "A", identity="bind", bind_path=str(tmp_path / "A")
        ) as client:
            connection, _ = await server.accept()
            await client.send("B", b"1")
        with connection:
            assert await connection.recv(10) == b"B1"


async def test_a_lost_bound_client_binds_again(tmp_path: Path) -> None:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(tmp_path / "server_socket"))
    sock.listen()
    path = tmp_path / "A"
    async with (
        trio.SocketListener(sock) as listener,
        open_client(
            f"{tmp_path}/server_socket",
            "A",
            identity="bind",
            bind_path=str(path),
            reconnect=Backoff(first=0.01),
        ) as client,
    ):
        for _ in range(2):
            server = await listener.accept()
            assert server.socket.getpeername() == str(path)
            await server.send_all(b"B1")
            assert await client.receive() == ("B", b"1")
            await server.aclose()


@pytest.mark.needs("gcc")
async def test_a_bound_client_talks_through_the_articles_own_server(
    compile_c: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with trio.open_nursery() as nursery:
        command = [str(compile_c("article_server")), "-v"]
        run = partial(trio.run_process, command, stdin=PIPE, stdout=PIPE, stderr=PIPE, check=False)
        server: trio.Process = await nursery.start(run)
        assert server.stdout is not None
        assert (await server.stdout.receive_some()).startswith(b"listening")
        async with (
            open_client("server_socket", "A", identity="bind") as a,
            open_client("server_socket", "B", identity="bind") as b,
        ):
            log = b""
            while log.count(b"client") < 2:
                log += await server.stdout.receive_some()
            await a.send("B", b"1")
            assert await b.receive() == ("A", b"1")
            await b.send("A", b"2")
            assert await a.receive() == ("B", b"2")
        assert os.listdir() == ["server_socket"]
        server.send_signal(signal.SIGTERM)


async def test_what_is_no_host_name_is_reported_in_one_line() -> None:
    with pytest.raises(OSError, match=r"cannot connect to tcp:a\.\.b:9734: that is no host name") as caught:
        async with open_client(TcpAddress("a..b", 9734), "A"):
            raise AssertionError
    assert "\n" not in str(caught.value)


class ShortOfThreads(trio.abc.HostnameResolver):
    """Looks names up as a system does that has no thread to spare for the first `failures` of them."""

    def __init__(self, failures: int, port: int) -> None:
        self.failures = failures
        self.port = port

    async def getaddrinfo(self, *arguments: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("can't start new thread")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]

    async def getnameinfo(self, *arguments: object) -> tuple[str, str]:
        raise NotImplementedError


async def test_a_shortage_of_threads_is_reported_in_one_line_and_passes(listening: Listening) -> None:
    port = int(listening.tcp.rpartition(":")[2])
    resolver = ShortOfThreads(3, port)
    trio.socket.set_custom_hostname_resolver(resolver)
    with pytest.raises(OSError, match="the system has no thread left for a name look-up") as caught:
        async with open_client(f"tcp:localhost:{port}", "A"):
            raise AssertionError
    assert caught.value.errno == errno.EAGAIN
    with trio.fail_after(10):
        async with open_client(f"tcp:localhost:{port}", "A", reconnect=Backoff(first=0.01, initial=True)) as client:
            assert await client.ping() >= 0
    assert resolver.failures == 0


async def test_a_shortage_of_descriptors_passes(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, whole = 0, socket.socket

    def limited(*arguments: object, **options: object) -> object:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return whole(*arguments, **options)  # type: ignore[arg-type]

    module = SimpleNamespace(**{**vars(socket), "socket": limited})
    monkeypatch.setattr("triorelay.client._transport.socket", module)
    with trio.fail_after(10):
        async with open_client(listening.unix, "A", reconnect=Backoff(first=0.01, initial=True)) as client:
            assert await client.ping() >= 0
    assert tries == 3


async def test_an_absolute_path_is_bound_without_a_working_directory(
    listening: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    path = tmp_path / "A"
    async with open_client(listening.unix, "A", identity="bind", bind_path=str(path)) as client:
        assert path.is_socket()
        assert client.id == "A"
    assert not path.exists()
