"""From a new connection to a session with an id.

1. A connection without an id is pending (`_pending`). It has `hello_timeout` in all for a TLS handshake, its hello, and
   its turn to have a token looked at, and costs at most `HELLO_BYTES` until then; by TLS, a record.
2. Whoever bound a path, or has a place in the address map, has an id without a word; everybody else says hello. The
   policy judges both, and once more after a wait, because it may be another one by then.
3. An id that is held is refused, unless its holder has hung up, which is waited for, or is replaced by the same
   principal. What the holder had sent is routed first, because only then its id becomes free.
4. Registering is one step: the id is taken, and welcome, presence and held frames are queued before anything else.
5. A refusal is answered where the hello asked for it; then input is discarded for a moment, because closing a
   connection with unread input would take the answer away from the client. Who said nothing in time is just closed.
"""

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from ..protocol import (
    CloseReason,
    Hello,
    HelloOption,
    HelloReader,
    Refusal,
    id_name,
)
from ..protocol._hello import BadHello
from ._claims import claim_any, claim_elsewhere, grant_claimed, grant_of
from ._connection import Connection, Peer
from ._log import LOGGER
from ._pending import origin_of
from ._policy import AddressRefused, Grant, Refused, token_digest
from ._requests import presence
from ._session import Session
from ._tls import TlsConnection, reason

if TYPE_CHECKING:
    from ._relay import Relay

HELLO_BYTES = 512
LINGER_SECONDS = 1.0
LINGER_BYTES = 65536


class _Silent(Exception):
    """It went away without a hello."""


def register_at_once(relay: "Relay", connection: Connection) -> Session | None:
    """Register a client that needs no hello and has nothing to wait for; return None where there is more to it."""
    id = relay.policy.id_without_hello(connection.peer)
    if not id or relay.remote is not None or relay.registry.holder(id) is not None:
        return None
    hello = Hello(id, HelloOption.NONE)
    try:
        return _register(relay, connection, hello, grant_of(relay, connection.peer, hello, b""), id, mapped=True)
    except Refused:
        return None


async def serve_connection(relay: "Relay", connection: Connection, session: Session | None = None) -> None:
    """Serve one connection from accept to close, as `session` if it is one already.

    Raises nothing but Cancelled: what fails ends this session alone.
    """
    transport = connection.peer.transport
    try:
        if session is None:
            with relay.pending.place(connection.peer) as scope:
                session = await _admit(relay, connection)
            if scope.cancelled_caught:
                crowded = CloseReason.DRAINING if relay.draining else CloseReason.CROWDED_OUT
                relay.sessions_ended[transport, crowded.label] += 1
        if session is not None:
            await session.run()
    except Refused as refused:
        _tell(relay, connection.peer, refused)
    except Exception:
        LOGGER.exception("bug in a session", extra={"fields": {"transport": transport}})
        if session is None:
            relay.sessions_ended[transport, CloseReason.ERROR.label] += 1
    finally:
        connection.close()


async def _admit(relay: "Relay", connection: Connection) -> Session | None:
    """Return the registered session of `connection`, or None where it was refused or went away."""
    hello, rest = Hello(relay.policy.id_without_hello(connection.peer), HelloOption.NONE), b""
    mapped = bool(hello.id)
    try:
        with trio.fail_after(relay.config.hello_timeout or float("inf")):
            if isinstance(connection, TlsConnection):
                await _shake_hands(relay, connection)
            if not mapped:
                hello, rest = await _read_hello(connection)
            if hello.token:
                await _token_turn(relay, connection.peer)
        session = await _claim(relay, connection, hello, mapped=mapped)
    except (_Silent, Refused, BadHello, trio.TooSlowError) as error:
        await _turn_away(relay, connection, hello, error)
        return None
    except trio.Cancelled:
        if relay.draining:
            _answer(connection, hello, Refusal.DRAINING)
        raise
    if rest:
        with relay.step():
            relay.router.feed(session, rest)
    return session


async def _shake_hands(relay: "Relay", connection: TlsConnection) -> None:
    try:
        await connection.handshake(relay.handshakes)
    except ConnectionAbortedError:
        raise _Silent from None
    except OSError as error:
        raise Refused(Refusal.BAD_HELLO, f"TLS: {reason(error)}") from None


async def _read_hello(connection: Connection) -> tuple[Hello, bytes]:
    reader = HelloReader()
    while True:
        try:
            chunk = connection.recv_nowait(HELLO_BYTES - len(reader.rest))
        except BlockingIOError:
            await connection.wait_readable()
            continue
        except OSError:
            raise _Silent from None
        if not chunk:
            raise _Silent
        hello = reader.feed(chunk)
        if hello is not None:
            return hello, reader.rest


async def _token_turn(relay: "Relay", peer: Peer) -> None:
    """Wait until a token of this origin may be looked at: not at once where it gave many wrong ones."""
    while True:
        wait = relay.wrong_tokens.wait(origin_of(peer))
        if not wait:
            return
        await trio.sleep(wait)


async def _claim(relay: "Relay", connection: Connection, hello: Hello, *, mapped: bool) -> Session:
    """Wait for the id where that makes sense, and register the session in one step.

    Raises:
        Refused: it may not have the id, or cannot now.
    """
    digest = token_digest(hello.token)
    grant = grant_of(relay, connection.peer, hello, digest)
    if hello.is_observer:
        relay.check_room_for_observer(connection.peer)
        return _register(relay, connection, hello, grant, 0)
    if not hello.id:
        hello = replace(hello, id=await claim_any(relay, grant))
        return _register(relay, connection, hello, grant_claimed(relay, connection.peer, hello, digest), hello.id)
    with trio.move_on_after(relay.config.stall_timeout or float("inf")):
        while True:
            if (reservation := relay.registry.reservation(hello.id)) is not None:
                await reservation.wait()
                continue
            holder = relay.registry.holder(hello.id)
            if holder is None:
                break
            if holder.connection.hung_up():
                with relay.step():
                    holder.settle()
            elif relay.config.duplicate == "replace" and grant.proven and holder.principal == grant.principal:
                holder.close(CloseReason.REPLACED)
            else:
                break
            if not holder.freed.is_set():
                await holder.freed.wait()
    if relay.registry.holder(hello.id) is not None or relay.registry.reservation(hello.id) is not None:
        raise Refused(Refusal.TAKEN, "another session holds it")
    await claim_elsewhere(relay, hello.id, grant)
    grant = grant_claimed(relay, connection.peer, hello, digest)
    return _register(relay, connection, hello, grant, hello.id, mapped=mapped)


def _register(
    relay: "Relay", connection: Connection, hello: Hello, grant: Grant, id: int, *, mapped: bool = False
) -> Session:
    session = Session(relay, connection, id, grant, events=hello.wants_events, mapped=mapped)
    if id:
        relay.registry.take(session, id)
    relay.sessions.add(session)
    relay.make_room()
    if hello.wants_answer:
        session.outbox.welcome(bytes((id, Refusal.WELCOME)))
    if session.events:
        session.outbox.put(presence(relay, session))
        relay.registry.listeners.add(session)
    if id:
        held = relay.hold.claim(id)
        if held:
            session.outbox.put(held)
        relay.hold.moved(id, session.outbox.mark_last_of)
        relay.registry.announce(session)
    peer = connection.peer
    relay.client_log.log(
        logging.INFO,
        "client joined" if id else "observer joined",
        **({"id": id_name(id)} if id else {}),
        transport=peer.transport,
        address=peer.address,
        principal=session.principal,
        **({"pid": peer.pid, "process": peer.process} if peer.pid else {}),
    )
    return session


async def _turn_away(relay: "Relay", connection: Connection, hello: Hello, error: Exception) -> None:
    peer = connection.peer
    match error:
        case Refused():
            refused = error
        case BadHello():
            refused = Refused(Refusal.BAD_HELLO, str(error))
        case trio.TooSlowError() if hello.token:
            refused = Refused(Refusal.UNAVAILABLE, "too many wrong tokens from this address")
        case trio.TooSlowError():
            _tell(relay, peer, Refused(Refusal.BAD_HELLO, "no hello in time"), CloseReason.HELLO_TIMEOUT.label)
            return
        case _:
            relay.sessions_ended[peer.transport, "no_hello"] += 1
            return
    _tell(relay, peer, refused, id=hello.id)
    if isinstance(error, BadHello):
        _send(connection, error.answer)
    else:
        _answer(connection, hello, refused.refusal)
    connection.shut_sending()
    await _linger(connection)


def _answer(connection: Connection, hello: Hello, refusal: Refusal) -> None:
    if hello.wants_answer:
        _send(connection, bytes((hello.id, refusal)))


def _send(connection: Connection, answer: bytes) -> None:
    # Nothing was sent before, so there is room; who is gone is not answered.
    with suppress(OSError):
        connection.send_nowait(answer)


async def _linger(connection: Connection) -> None:
    discarded = 0
    with trio.move_on_after(LINGER_SECONDS):
        while discarded < LINGER_BYTES:
            try:
                chunk = connection.recv_nowait(4096)
            except BlockingIOError:
                await connection.wait_readable()
                continue
            except OSError:
                return
            if not chunk:
                return
            discarded += len(chunk)
            await trio.lowlevel.checkpoint()


def _tell(relay: "Relay", peer: Peer, refused: Refused, outcome: str = "", *, id: int = 0) -> None:
    """Count and log a refusal."""
    if isinstance(refused, AddressRefused):
        relay.address_refused(peer)
        return
    relay.sessions_ended[peer.transport, outcome or refused.refusal.label] += 1
    facts: dict[str, object] = {"transport": peer.transport, "address": peer.address}
    if id:
        facts["id"] = id_name(id)
    if peer.pid:
        facts |= {"pid": peer.pid, "process": peer.process}
    if peer.certificate_names:
        facts["certificate"] = peer.certificate_names[0]
    if peer.transport == "unix" and not peer.address and refused.refusal is Refusal.BAD_HELLO:
        facts["hint"] = "it has no name: if it binds one, the socket file of an earlier run may be in its way"
    relay.refusal_log.log(logging.WARNING, "client refused", reason=str(refused), code=int(refused.refusal), **facts)
