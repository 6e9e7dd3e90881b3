"""Opening a client: from arguments to a block in which it lives."""

import errno
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from types import UnionType
from typing import Literal

import trio

from ..protocol import (
    Address,
    Hello,
    HelloOption,
    LocalProtocolError,
    RelayError,
    TcpAddress,
    UnixAddress,
    id_byte,
    parse_address,
)
from ._bare import open_bare_nursery
from ._client import Client
from ._inbox import Inbox
from ._link import Link
from ._presence import Presence
from ._reconnect import Backoff
from ._session import Session
from ._transport import Connect, Wire, check_bound_path, open_wire

CONNECT_TIMEOUT = 20.0
"""Seconds until the welcome must have come: twice the stall timeout, for which a relay may make a claim wait while it
finds out whether the holder of the id is still alive."""

LAST_READ = 0.25
"""Seconds to read data that has arrived by then: it is in this machine's kernel already."""


async def _open_session(
    connect: Callable[[], Awaitable[Wire]],
    name: str,
    hello: Hello | None,
    confirms: bool,
    inbox: Inbox,
    presence: Presence,
) -> Session:
    """Connect and be welcomed, with the id that this client wants or had before."""
    if hello is not None and presence.own:
        # EVENTS asks for an answer too. For any id ACK stands beside it, which an observer's hello has not.
        hello = replace(hello, id=presence.own, options=hello.options & ~HelloOption.ACK)
    wire: Wire | None = None
    try:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(_limit, nursery.cancel_scope)
            wire = await connect()
            session = Session(wire, hello, inbox, presence, confirms=confirms)
            await session.greet()
            nursery.cancel_scope.cancel()
            return session
        raise TimeoutError(errno.ETIMEDOUT, f"cannot connect to {name}: no welcome within {CONNECT_TIMEOUT:g} s")
    except BaseException:
        # A cancellation may come after the welcome, too.
        if wire is not None:
            await wire.aclose()
        raise


async def _limit(connecting: trio.CancelScope) -> None:
    # If this process was suspended, the time may be over although the answer has arrived.
    await trio.sleep(CONNECT_TIMEOUT)
    await trio.sleep(LAST_READ)
    connecting.cancel()


def _parsed(address: str | os.PathLike[str] | Address | Connect) -> Address | Connect:
    if isinstance(address, str):
        return parse_address(address)
    if isinstance(address, os.PathLike):
        return parse_address(f"unix://{os.fsdecode(address)}")
    if not (isinstance(address, Address) or callable(address)):
        raise TypeError(
            "an address is unix:PATH, tcp:HOST:PORT or tls:HOST:PORT as a str, a path, what parse_address returns, or "
            f"an async function that opens a connection, not {address!r}"
        )
    return address


def _token(token: str | bytes | None) -> bytes:
    if not isinstance(token, str | bytes | None):
        raise TypeError(f"a token is str or bytes, not {type(token).__name__}")
    encoded = token.encode() if isinstance(token, str) else token
    if encoded is not None and not 1 <= len(encoded) <= 255:
        raise ValueError(f"a token has 1 to 255 bytes, not {len(encoded)}")
    return encoded or b""


def _check_types(expected: str, kind: type | UnionType, **options: object) -> None:
    for name, value in options.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {expected}, not {value!r}")


@asynccontextmanager
async def open_client(
    address: str | os.PathLike[str] | Address | Connect,
    id: str | bytes | int | None = None,
    *,
    token: str | bytes | None = None,
    ssl_context: ssl.SSLContext | None = None,
    identity: Literal["hello", "bind"] = "hello",
    bind_path: str | None = None,
    observer: bool = False,
    shared: bool = False,
    lossy: bool = False,
    reconnect: Backoff | None = None,
    strict: bool = False,
) -> AsyncIterator[Client]:
    """Connect to a relay, wait for its welcome, and be its client while the block lasts.

    After a loss, the next call that needs the relay raises. Leaving the block waits until all that was sent is written
    or dropped, then closes: at most 30 s. Leaving by an exception does the same, and the exception stays as it is.
    Leaving by a cancellation closes at once, and what was sent last may be lost. Exceptions come out as they are, never
    in an ExceptionGroup.

    Args:
        address: `unix:PATH`, `tcp:HOST:PORT`, `tls:HOST:PORT`, or short `PATH` and `HOST:PORT`; a Unix socket's path
            as a `pathlib.Path`; or an async function that returns a connected `trio.abc.HalfCloseableStream`, of which
            the client becomes the owner.
        id: the id to hold, as `"A"`, `b"A"` or 65; None for any free one.
        token: the proof of identity for a relay that asks for one: 1 to 255 bytes.
        ssl_context: for `tls:`; by default the system's certificate authorities are trusted.
        identity: `"hello"`, or `"bind"` for the article's way: a Unix socket bound to a path whose last part begins
            with the id. It works with servers that know no hello, and has neither welcome nor events.
        bind_path: the path for `"bind"`; by default the id itself, in the current directory. It must not exist, and is
            removed at the end.
        observer: connect without an id: presence, events and `ping`, no data.
        shared: hold the id together with other clients that ask for the same: each gets a copy of what is sent to it,
            and all of them send with it as the source. It needs an id.
        lossy: while this client's queue at the relay is full, the relay drops new frames for it instead of pausing
            their sender.
        reconnect: reconnect after a loss, with the same id; None to fail. The first connection is tried once, unless
            the `Backoff` says `initial=True`. A client that another session of its
            principal replaced fails in any case.
        strict: after frames were lost, or no client held their destination, the next send, flush or end of the block
            raises `NotDelivered`.

    Raises:
        OSError: no relay answers at `address`, or `bind_path` exists; `strerror` is one line that says so.
        HelloRefused: the relay refused, with the reason.
        ConnectionLost: the relay hung up before its welcome; or, leaving, something sent may not have arrived.
        RemoteProtocolError: the server is not a relay.
        LocalProtocolError: arguments that exclude one another.
        ValueError: not an id, or not an address.
        TypeError: an argument of a wrong type.
    """
    way_to = _parsed(address)
    wanted = 0 if id is None else id_byte(id)
    if identity not in ("hello", "bind"):
        raise ValueError(f"identity is 'hello' or 'bind', not {identity!r}")
    _check_types("True or False", bool, observer=observer, shared=shared, lossy=lossy, strict=strict)
    _check_types("a triorelay.Backoff, such as Backoff(), or None", Backoff | None, reconnect=reconnect)
    _check_types("an ssl.SSLContext or None", ssl.SSLContext | None, ssl_context=ssl_context)
    _check_types("a str or None", str | None, bind_path=bind_path)
    proof = _token(token)
    is_bound = identity == "bind"
    is_tls = isinstance(way_to, TcpAddress) and way_to.tls
    contradictions = (
        (
            is_bound and not isinstance(way_to, UnixAddress),
            "identity='bind' needs a unix: address; over TCP the hello gives the id",
        ),
        (is_bound and not wanted, "identity='bind' needs an id: it is what the bound path begins with"),
        (
            is_bound and (token or observer or strict or shared or lossy),
            "identity='bind' says no hello, so it takes no token, observer, strict, shared or lossy",
        ),
        (not is_bound and bind_path is not None, "bind_path goes with identity='bind' alone"),
        (ssl_context and not is_tls, "ssl_context needs a tls: address; elsewhere nothing would be encrypted"),
        (observer and wanted, "an observer holds no id: leave out id, or observer"),
        (shared and not wanted, "a shared id is named: give the id that the others hold, or leave out shared"),
        (observer and lossy, "an observer gets no frames: leave out lossy, or observer"),
    )
    for is_wrong, text in contradictions:
        if is_wrong:
            raise LocalProtocolError(text)
    own_path = check_bound_path(wanted, bind_path) if is_bound else None
    connect = partial(open_wire, way_to, ssl_context=ssl_context, bind_path=own_path, with_token=bool(proof))
    name = "a given stream" if callable(way_to) else str(way_to)
    options = HelloOption.EVENTS | HelloOption.ACK * (not observer)
    options |= HelloOption.SHARE * shared | HelloOption.LOSSY * lossy
    hello = None if is_bound else Hello(wanted, options, proof)
    open_session = partial(_open_session, connect, name, hello, reconnect is not None)
    link = Link(open_session, backoff=reconnect, has_events=not is_bound, strict=strict)
    link.presence.own = wanted
    await link.open()
    client = Client(link, name)
    async with open_bare_nursery() as nursery:
        nursery.start_soon(link.run)
        try:
            yield client
        except Exception:
            with suppress(RelayError, trio.Cancelled):
                await client.aclose()
            raise
        except BaseException:
            link.abandon()
            raise
        else:
            await client.aclose()
