"""From arguments to a block in which a client lives, and out of it."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.client.scripted import event
from triorelay.client import Backoff, Client, open_client
from triorelay.client._open import CONNECT_TIMEOUT, LAST_READ
from triorelay.client._session import Session
from triorelay.protocol import (
    EventCode,
    LocalProtocolError,
    RemoteProtocolError,
    UnixAddress,
    parse_address,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.client.scripted import Script, ScriptedRelay
    from triorelay.testing import MemoryRelay


async def open_briefly(*args: object, **options: object) -> None:
    async with open_client(*args, **options):  # type: ignore[arg-type]
        raise AssertionError("it should not open")


# -- arguments


@pytest.mark.parametrize("id", ["", "AB", b"", b"AB", 0, 256, -1, "\u20ac"], ids=repr)
async def test_an_id_that_is_not_one_byte_is_refused(id: object) -> None:
    with pytest.raises(ValueError, match="an id is one byte from 1 to 255"):
        await open_briefly("unix:nowhere", id)


@pytest.mark.parametrize("id", [1.5, ["A"], True])
async def test_an_id_of_another_type_is_refused(id: object) -> None:
    with pytest.raises(TypeError, match="an id is a one-character str"):
        await open_briefly("unix:nowhere", id)


@pytest.mark.parametrize("address", ["unix:", "tcp:localhost", "tls:localhost:99999", ""])
async def test_an_address_that_does_not_parse_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"an address needs|a port is"):
        await open_briefly(address, "A")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"identity": "bind"}, "needs an id"),
        ({"identity": "bind", "id": "A", "token": "t"}, "says no hello"),
        ({"identity": "bind", "id": "A", "strict": True}, "says no hello"),
        ({"identity": "bind", "id": "A", "observer": True}, "says no hello"),
        ({"identity": "bind", "id": "A", "bind_path": "mods/B"}, "must begin with"),
        ({"identity": "bind", "id": "A", "address": "tcp:localhost:1"}, "needs a unix: address"),
        ({"identity": "bind", "id": "/"}, "use identity='hello'"),
        ({"identity": "bind", "id": "."}, r"the path \. cannot be bound, as it is always a directory: give bind_path"),
        ({"identity": "bind", "id": ".", "bind_path": "mods/.."}, r"the path mods/\.\. cannot be bound"),
        ({"id": "A", "bind_path": "A"}, "goes with identity='bind' alone"),
        ({"id": "A", "observer": True}, "leave out id, or observer"),
        ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}, "needs a tls: address"),
        (
            {"address": "tcp:localhost:1", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
            "needs a tls: address",
        ),
    ],
)
async def test_arguments_that_exclude_one_another_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(LocalProtocolError, match=text):
        await open_briefly(**({"address": "unix:nowhere"} | options))


@pytest.mark.parametrize("options", [{"token": ""}, {"token": b"x" * 256}, {"identity": "both"}])
async def test_values_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"a token has 1 to 255 bytes|identity is"):
        await open_briefly("unix:nowhere", "A", **options)


async def test_an_address_may_be_parsed_already() -> None:
    with pytest.raises(OSError, match="cannot connect to unix:nowhere"):
        await open_briefly(parse_address("nowhere"), "A")


@pytest.mark.parametrize("path", ["nowhere", "tcp:host:1", "/nowhere", "//nowhere"])
async def test_a_path_is_a_unix_address_whatever_it_looks_like(path: str) -> None:
    with pytest.raises(FileNotFoundError, match="cannot connect to unix:") as caught:
        await open_briefly(Path(path), "A")
    assert f"cannot connect to {UnixAddress(str(Path(path)))}: " in str(caught.value)


@pytest.mark.parametrize("address", [5, None, b"unix:nowhere", ("localhost", 1)], ids=repr)
async def test_an_address_of_another_type_is_refused(address: object) -> None:
    with pytest.raises(TypeError, match="an address is unix:PATH, tcp:HOST:PORT or tls:HOST:PORT as a str, a path"):
        await open_briefly(address, "A")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"reconnect": True}, r"reconnect is a triorelay\.Backoff, such as Backoff\(\), or None, not True"),
        ({"reconnect": 1.0}, r"reconnect is a triorelay\.Backoff"),
        ({"token": 5}, "a token is str or bytes, not int"),
        ({"token": ["t"]}, "a token is str or bytes, not list"),
        ({"observer": 1}, "^observer is True or False, not 1$"),
        ({"shared": None}, "^shared is True or False, not None$"),
        ({"lossy": "no"}, "^lossy is True or False, not 'no'$"),
        ({"strict": "yes"}, "^strict is True or False, not 'yes'$"),
        ({"ssl_context": True}, r"^ssl_context is an ssl\.SSLContext or None, not True$"),
        ({"identity": "bind", "bind_path": b"A"}, "^bind_path is a str or None, not b'A'$"),
    ],
)
async def test_options_of_another_type_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        await open_briefly("unix:nowhere", "A", **options)


# -- connecting


async def test_a_relay_that_does_not_answer_is_given_up(scripted: ScriptedRelay, autojump_clock: MockClock) -> None:
    start = trio.current_time()
    with pytest.raises(TimeoutError, match="no welcome within 20 s"):
        await open_briefly(scripted.connect, "A")
    assert trio.current_time() - start == CONNECT_TIMEOUT + LAST_READ
    assert await (await scripted.accept()).read(2) == b"A\x82"


async def test_the_first_connection_is_tried_once(scripted: ScriptedRelay) -> None:
    scripted.refusing = True
    with pytest.raises(ConnectionRefusedError):
        await open_briefly(scripted.connect, "A", reconnect=Backoff())


async def test_a_cancelled_opening_closes_its_connection(scripted: ScriptedRelay) -> None:
    async with trio.open_nursery() as opening:
        opening.start_soon(open_briefly, scripted.connect, "A")
        await wait_all_tasks_blocked()
        opening.cancel_scope.cancel()
    script = await scripted.accept()
    assert await script.read(2) == b"A\x82"
    assert await script.stream.receive_some() == b""


# -- leaving by an error


async def leave_by(scripted: ScriptedRelay, error: BaseException, **options: object) -> None:
    async with scripted.client(**options):  # type: ignore[arg-type]
        raise error


async def test_an_error_of_the_block_comes_out_as_it_is_after_a_proper_goodbye(scripted: ScriptedRelay) -> None:
    error = KeyError("block")
    with pytest.raises(KeyError) as caught:
        await leave_by(scripted, error)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_group_of_the_block_comes_out_as_it_is(scripted: ScriptedRelay) -> None:
    group = ExceptionGroup("mine", [KeyError("one"), OSError("other")])
    with pytest.RaisesGroup(KeyError, OSError) as caught:
        await leave_by(scripted, group)
    assert caught.value is group


async def test_an_error_of_the_block_comes_before_a_loss(scripted: ScriptedRelay) -> None:
    async def run() -> None:
        async with scripted.client(goodbye=False) as (client, script):
            await client.send("B", b"1")
            await script.hang_up()
            raise KeyError("block")

    with pytest.raises(KeyError):
        await run()


async def test_an_error_of_the_block_comes_before_a_cancellation(scripted: ScriptedRelay) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(KeyError):
            await leave_while_cancelled(scripted)
    assert not scope.cancelled_caught


async def leave_while_cancelled(scripted: ScriptedRelay) -> None:
    with trio.CancelScope(shield=True) as shield:
        async with scripted.client(goodbye=False):
            shield.shield = False
            raise KeyError("block")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interruption_does_not_wait_for_a_goodbye(
    scripted: ScriptedRelay, autojump_clock: MockClock, error: type[BaseException]
) -> None:
    start = trio.current_time()
    with pytest.raises(error):
        await leave_by(scripted, error(), goodbye=False)
    assert trio.current_time() == start


async def test_a_cancelled_block_goes_at_once(scripted: ScriptedRelay, autojump_clock: MockClock) -> None:
    start = trio.current_time()
    with trio.CancelScope() as scope:
        async with scripted.client(goodbye=False) as (_, script):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == start
    assert await script.stream.receive_some() == b""


async def test_a_goodbye_that_is_cancelled_is_cut_off(scripted: ScriptedRelay, autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with scripted.client(goodbye=False) as (client, _):
            await client.send("B", b"1")
    assert scope.cancelled_caught


async def test_a_bug_in_the_library_comes_out_bare_too(
    scripted: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with scripted.client(goodbye=False) as (client, script):
            assert client._link._session is not None
            monkeypatch.setattr(client._link._session._frames, "feed", lambda chunk: {}[chunk])
            await script.say(b"B1")
            await trio.sleep_forever()

    with pytest.raises(KeyError):
        await run()


async def test_two_clients_in_one_block(relay: MemoryRelay) -> None:
    async def run() -> None:
        async with relay.open_client("A") as a, relay.open_client("B") as b:
            await a.send("B", b"1")
            assert await b.receive() == ("A", b"1")
            raise KeyError("block")

    with pytest.raises(KeyError):
        await run()


async def test_a_client_identifies_itself(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client(observer=True) as observer, relay.open_client() as any_id:
        assert isinstance(a, Client)
        assert (a.id, observer.id, any_id.id) == ("A", "", "\xff")
        assert repr(a) == "<triorelay.Client A at a given stream>"
        assert repr(observer) == "<triorelay.Client an observer at a given stream>"
        assert repr(any_id) == "<triorelay.Client 0xff at a given stream>"


async def test_a_client_that_was_suspended_while_its_welcome_came_takes_it(
    scripted: ScriptedRelay, mock_clock: MockClock
) -> None:
    opened = trio.Event()

    async def run() -> None:
        async with open_client(scripted.connect, "A"):
            opened.set()

    with trio.move_on_after(1000) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            script = await scripted.accept()
            assert await script.read(2) == b"A\x82"
            # In one step, as for a process that slept: the time is over, and the answer is there, in two parts.
            mock_clock.jump(CONNECT_TIMEOUT + 10)
            await script.say(b"A\0")
            await script.say(event(EventCode.SYNCED))
            await opened.wait()
            await script.goodbye()
    assert not scope.cancelled_caught


async def test_a_peer_that_floods_before_its_list_of_clients_is_no_relay(scripted: ScriptedRelay) -> None:
    sent = 0

    async def flood(script: Script) -> None:
        nonlocal sent
        await script.read(2)
        await script.say(b"A\0")
        with suppress(trio.BrokenResourceError):
            while sent < 100_000_000:
                await script.stream.send_all(b"B1" * 32768)
                sent += 65536

    scripted.serve(flood)
    with pytest.raises(RemoteProtocolError, match="sends without end before its list of clients"):
        await open_briefly(scripted.connect, "A")
    assert sent < 1_000_000


async def test_a_backoff_without_initial_tries_the_first_connection_once(scripted: ScriptedRelay) -> None:
    scripted.refusing = True
    with pytest.raises(ConnectionRefusedError):
        await open_briefly(scripted.connect, "A", reconnect=Backoff())


async def test_a_cancellation_that_comes_with_the_welcome_leaves_no_connection_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    greet = Session.greet

    async def greet_and_cancel(session: Session) -> None:
        await greet(session)
        scope.cancel()

    async def connect() -> trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]:
        return ours

    monkeypatch.setattr(Session, "greet", greet_and_cancel)
    await theirs.send_all(b"A\0" + event(EventCode.SYNCED))
    with trio.CancelScope() as scope:
        async with open_client(connect, "A"):
            raise AssertionError("it is open though it was cancelled")
    with trio.fail_after(10):
        while await theirs.receive_some():
            pass
