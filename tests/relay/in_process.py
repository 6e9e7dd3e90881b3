"""A relay in the test's own process, over real sockets, with clients that speak bytes; its ledger is checked."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from tests.stream_client import StreamClient
from tests.watchdog import PATIENCE as PATIENCE
from triorelay import testing
from triorelay.relay import Config, Relay, TlsFiles, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    import trustme

    from triorelay.testing._memory import MemoryStream

NONE, ACK, EVENTS, TOKEN = 0, 1, 2, 4
"""Options of the hello."""

JOINED, LEFT, DROPPED, SYNCED, CLOSING = 1, 2, 4, 7, 9
"""Codes of events."""


Client = StreamClient[trio.abc.Stream]


_open: list[Client] = []
"""Clients that `running` closes at its end, whether or not the test did."""


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Relay]:
    """Run a relay for the length of the block, drain it, and check that its ledger balances."""
    async with trio.open_nursery() as nursery:
        relay: Relay = await nursery.start(partial(serve, config))
        try:
            yield relay
        finally:
            for client in _open:
                await trio.aclose_forcefully(client.stream)
            _open.clear()
        relay.drain()
    ledger: dict[str, Any] = relay.ledger.summary(relay.exchange.queued_frames())
    assert ledger["queued"] == 0
    assert ledger["accepted"] == ledger["written"] + sum(ledger["dropped"].values())


def port(relay: Relay, transport: str) -> int:
    address = next(address for address in relay.addresses if address.startswith(f"{transport}:"))
    return int(address.rpartition(":")[2])


async def connect(relay: Relay, *, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> Client:
    """Connect by TCP from the address `source`, or by TLS; no handshake is made yet."""
    stream: trio.abc.Stream = await trio.open_tcp_stream(
        "127.0.0.1", port(relay, "tls" if tls else "tcp"), local_address=source
    )
    return _opened(trio.SSLStream(stream, tls, server_hostname="127.0.0.1") if tls else stream)


def _opened(stream: trio.abc.Stream) -> Client:
    _open.append(Client(stream))
    return _open[-1]


async def connect_silently(relay: Relay, transport: str, source: str = "127.0.0.1") -> Client:
    """Connect to the port of `transport` without speaking it."""
    return _opened(await trio.open_tcp_stream("127.0.0.1", port(relay, transport), local_address=source))


async def connect_unix(relay: Relay) -> Client:
    address = next(address for address in relay.addresses if address.startswith("unix:"))
    return _opened(await trio.open_unix_socket(address.removeprefix("unix:")))


def hello(id: bytes, options: int = ACK, token: bytes = b"") -> bytes:
    if not token:
        return id + bytes((0x80 | options,))
    return id + bytes((0x80 | options | TOKEN, len(token))) + token


async def claim(
    relay: Relay, id: bytes, *, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1", token: bytes = b""
) -> Client:
    """Connect, say hello, and read the welcome."""
    client = await connect(relay, tls=tls, source=source)
    await client.send(hello(id, token=token))
    await client.expect(id, b"\0")
    return client


async def refusal(
    relay: Relay, id: bytes, *, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1", token: bytes = b""
) -> int:
    """Connect, say hello, and return the code of the answer, which must be a refusal and the end."""
    client = await connect(relay, tls=tls, source=source)
    await client.send(hello(id, token=token))
    answer = await client.read_to_end()
    await client.close()
    assert len(answer) == 2
    assert answer[:1] == id
    assert answer[1]
    return answer[1]


@asynccontextmanager
async def leaving_slowly(config: Config) -> AsyncIterator[tuple[testing.MemoryRelay, MemoryStream]]:
    """Run a relay in memory whose client A has left with frames for B, which reads only when the test says so.

    The relay still has some of A's frames to place, so a new claim of A has to wait. Yields the relay and B.
    """
    async with testing.open_relay(replace(config, queue_bytes=2, stall_timeout=0), capacity=20_000) as memory:
        a, b = memory.connect("A"), memory.connect("B")
        await b.send_all(b"B1")
        assert await b.receive_some(2) == b"B1"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send_all, b"B1" * 50_000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await a.send_eof()
        try:
            yield memory, b
        finally:
            a.close()
            b.close()


def write_tls_files(
    directory: Path, ca: trustme.CA, *, client_ca: trustme.CA | None = None, names: tuple[str, ...] = ("127.0.0.1",)
) -> TlsFiles:
    """Write a certificate for `names`, its key, and the client CA; return the settings that name them."""
    certificate = ca.issue_cert(*names)
    files = TlsFiles(
        certificate=directory / "relay.pem",
        key=directory / "relay.key",
        client_ca=directory / "ca.pem" if client_ca else None,
    )
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(files.key))
    if client_ca and files.client_ca:
        client_ca.cert_pem.write_to_path(str(files.client_ca))
    return files


def client_context(ca: trustme.CA, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if certificate:
        certificate.configure_cert(context)
    return context


def networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    from ipaddress import ip_network

    return tuple(ip_network(text) for text in texts)
