"""Relays for the client's tests: the real one in memory and on sockets, and one whose every byte the test writes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest
import trio
import trustme

from tests.client.scripted import ScriptedRelay
from triorelay.client._session import Session
from triorelay.relay import Config, Relay, TlsFiles, serve
from triorelay.testing import MemoryRelay, open_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def check_ledger(relay: Relay) -> None:
    """Assert that every frame that the relay accepted, and every copy, was written, is queued or was dropped."""
    ledger = relay.ledger
    frames = sum(ledger.accepted) + ledger.copied
    assert frames == ledger.written + relay.exchange.queued_frames() + sum(ledger.dropped.values())


@pytest.fixture
async def relay() -> AsyncIterator[MemoryRelay]:
    """The real relay, in memory."""
    async with open_relay() as relay:
        yield relay
        check_ledger(relay.relay)
    check_ledger(relay.relay)


async def _do_nothing(session: Session) -> None:
    await trio.lowlevel.checkpoint()


@pytest.fixture
def scripted(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> ScriptedRelay:
    """A relay of which the test writes every byte, and a client that asks no FLUSH by itself."""
    monkeypatch.setattr(Session, "_keep_confirming", _do_nothing)
    return ScriptedRelay(nursery)


@dataclass(frozen=True)
class Listening:
    """The real relay on sockets.

    Attributes:
        relay: the relay.
        unix: where it listens, as a client writes it; `tcp` and `tls` likewise.
        trusting: a client's context that trusts the relay's certificate.
        stopped: set once the relay has drained and ended.
    """

    relay: Relay
    unix: str
    tcp: str
    tls: str
    trusting: ssl.SSLContext
    stopped: trio.Event


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The authority of the relay's certificate."""
    return trustme.CA()


class Listen(Protocol):
    async def __call__(self, **settings: object) -> Listening: ...


@pytest.fixture
async def listen(tmp_path: Path, nursery: trio.Nursery, authority: trustme.CA) -> AsyncIterator[Listen]:
    """A function that runs the real relay by Unix, TCP and TLS, with further settings of `Config`."""
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "relay.key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "relay.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    relays: list[Relay] = []

    async def listen(**settings: object) -> Listening:
        config = Config(
            unix=(str(tmp_path / "server_socket"),),
            tcp=(("127.0.0.1", 0),),
            tls=(("127.0.0.1", 0),),
            tls_files=TlsFiles(certificate=tmp_path / "relay.pem", key=tmp_path / "relay.key"),
            **settings,  # type: ignore[arg-type]
        )
        stopped = trio.Event()

        async def run(*, task_status: trio.TaskStatus[Relay]) -> None:
            await serve(config, task_status=task_status)
            stopped.set()

        relay: Relay = await nursery.start(run)
        relays.append(relay)
        unix, tcp, tls = relay.addresses
        return Listening(relay, unix, tcp, tls, trusting, stopped)

    yield listen
    for relay in relays:
        check_ledger(relay)
        relay.drain()


@pytest.fixture
async def listening(listen: Listen) -> Listening:
    """The real relay by Unix, TCP and TLS."""
    return await listen()
