"""From a new connection to a session with an id.

1. A connection without an id is pending (`_pending`). It has `hello_timeout` in all for a TLS handshake, its hello, and
   its turn to have a token checked, and costs at most `HELLO_BYTES` until then; over TLS, a record.
2. A client that bound a path, or has an entry in the address map, has an id without a hello; every other sends a hello.
   `_claims` decides on both.
3. The relay answers a refusal if the hello asked for an answer, and then discards input for a moment, because closing a
   connection with unread input would discard the answer. A client that sent nothing in time is closed without one.
"""

import logging
import os
import ssl
from contextlib import suppress

import trio

from ..protocol import CloseReason, Hello, HelloOption, HelloReader, Refusal, id_name
from ..protocol._hello import BadHello
from ._buckets import Buckets
from ._claims import Claims
from ._client_task import run_session
from ._config import PRIVATE_NETWORKS
from ._connection import Connection, Peer
from ._log import LOGGER, Throttle
from ._pending import origin_of
from ._policy import AddressRefused, Refused
from ._relay import Relay
from ._session import Session
from ._tls import TlsConnection
from ._tls import reason as tls_reason

HELLO_BYTES = 512
LINGER_SECONDS = 1.0
LINGER_BYTES = 65536


class _Silent(Exception):
    """It went away without a hello."""


class Admission:
    """Takes the connections of one relay's listeners (`_listeners.Entrance`), and serves them to their end."""

    def __init__(self, relay: Relay, sessions: trio.Nursery) -> None:
        """Serve each connection in a task of its own in `sessions`."""
        self._relay = relay
        self._sessions = sessions
        self._claims = Claims(relay)
        self._handshakes = trio.Lock()
        self._accept_log = Throttle(trio.current_time, interval=1)
        self._refusal_log = Throttle(trio.current_time, interval=0.5, burst=20)
        self._address_log = Throttle(trio.current_time, interval=0.5, burst=20)
        self._address_lines = Buckets(trio.current_time, interval=60)

    # -- what a listener asks

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context for connections with TLS."""
        return self._relay.tls

    def admits(self, peer: Peer) -> bool:
        """Return whether the connection may continue, by its address; if not, count and log it."""
        if self._relay.policy.admits(peer):
            return True
        self._note_address(peer)
        return False

    def enter(self, connection: Connection) -> None:
        """Serve `connection`, which is closed at the end."""
        # A client that has its id by its path is there from the moment it connects, as with a server that looks at its
        # listener before it looks at its clients: what is sent to it in that very moment finds it.
        self._sessions.start_soon(self._serve, connection, self._claims.join_at_once(connection))

    def resume(self, session: Session) -> None:
        """Serve a session that another relay handed over."""
        self._sessions.start_soon(self._serve, session.connection, session)

    def cannot_accept(self, address: str, error: OSError) -> None:
        """Log that the system has nothing left to accept with."""
        reason = os.strerror(error.errno or 0)
        self._accept_log.log(logging.WARNING, "cannot accept", listener=address, reason=reason)

    # -- its task

    async def _serve(self, connection: Connection, session: Session | None) -> None:
        """Serve one connection from accept to close, as `session` if it is one already.

        Raises nothing but Cancelled: what fails ends this session alone.
        """
        relay, transport = self._relay, connection.peer.transport
        try:
            if session is None:
                with relay.pending.place(connection.peer) as scope:
                    session = await self._admit(connection)
                if scope.cancelled_caught:
                    crowded = CloseReason.DRAINING if relay.draining else CloseReason.CROWDED_OUT
                    relay.sessions_ended[transport, crowded.label] += 1
            if session is not None:
                await run_session(relay, session)
        except Refused as refused:
            self._note(connection.peer, refused)
        except Exception:
            LOGGER.exception("bug in a session", extra={"fields": {"transport": transport}})
            if session is None:
                relay.sessions_ended[transport, CloseReason.ERROR.label] += 1
        finally:
            connection.close()

    async def _admit(self, connection: Connection) -> Session | None:
        """Return the registered session of `connection`, or None where it was refused or went away."""
        relay = self._relay
        hello, rest = Hello(relay.policy.id_without_hello(connection.peer), HelloOption.NONE), b""
        mapped = bool(hello.id)
        try:
            with relay.pending.arrival(connection) as said:
                with trio.fail_after(relay.config.hello_timeout or float("inf")):
                    if isinstance(connection, TlsConnection):
                        await self._shake_hands(connection)
                    if not mapped:
                        hello, rest = await _read_hello(connection, said)
                    if hello.token:
                        await self._claims.token_turn(connection.peer)
                session = await self._claims.claim(connection, hello, mapped=mapped)
        except (_Silent, Refused, BadHello, trio.TooSlowError) as error:
            await self._turn_away(connection, hello, error)
            return None
        except trio.Cancelled:
            if relay.draining:
                _answer(connection, hello, Refusal.DRAINING)
            raise
        if rest:
            with relay.exchange.round.step():
                relay.router.feed(session, rest)
        return session

    async def _shake_hands(self, connection: TlsConnection) -> None:
        try:
            await connection.handshake(self._handshakes)
        except ConnectionAbortedError:
            raise _Silent from None
        except OSError as error:
            raise Refused(Refusal.BAD_HELLO, f"TLS: {tls_reason(error)}") from None

    async def _turn_away(self, connection: Connection, hello: Hello, error: Exception) -> None:
        peer = connection.peer
        match error:
            case Refused():
                refused = error
            case BadHello():
                refused = Refused(Refusal.BAD_HELLO, str(error))
            case trio.TooSlowError() if hello.token:
                refused = Refused(Refusal.UNAVAILABLE, "too many wrong tokens from this address")
            case trio.TooSlowError():
                self._note(peer, Refused(Refusal.BAD_HELLO, "no hello in time"), CloseReason.HELLO_TIMEOUT.label)
                return
            case _:
                self._relay.sessions_ended[peer.transport, "no_hello"] += 1
                return
        self._note(peer, refused, id=hello.id)
        if isinstance(error, BadHello):
            _send(connection, error.answer)
        else:
            _answer(connection, hello, refused.refusal)
        connection.shut_sending()
        await _linger(connection)

    def _note(self, peer: Peer, refused: Refused, outcome: str = "", *, id: int = 0) -> None:
        """Count and log a refusal."""
        if isinstance(refused, AddressRefused):
            self._note_address(peer)
            return
        self._relay.sessions_ended[peer.transport, outcome or refused.refusal.label] += 1
        facts: dict[str, object] = {"transport": peer.transport, "address": peer.address}
        if id:
            facts["id"] = id_name(id)
        if peer.pid:
            facts |= {"pid": peer.pid, "process": peer.process}
        if peer.certificate_names:
            facts["certificate"] = peer.certificate_names[0]
        if peer.transport == "unix" and not peer.address and refused.refusal is Refusal.BAD_HELLO:
            facts["hint"] = "it has no name: if it binds one, the socket file of an earlier run may be in its way"
        code = int(refused.refusal)
        self._refusal_log.log(logging.WARNING, "client refused", reason=str(refused), code=code, **facts)

    def _note_address(self, peer: Peer) -> None:
        """Count, and for each address once a minute log, that an address is not allowed."""
        self._relay.sessions_ended[peer.transport, "address"] += 1
        origin = origin_of(peer)
        if not self._address_lines.wait(origin):
            self._address_lines.count(origin)
            # The first --allow replaces the default.
            default = "--allow private " if self._relay.config.allow == PRIVATE_NETWORKS else ""
            hint = f"to let it in, add {default}--allow {peer.ip}"
            self._address_log.log(logging.WARNING, "address refused", address=peer.address, hint=hint)


async def _read_hello(connection: Connection, said: bytearray) -> tuple[Hello, bytes]:
    """Read a hello and the bytes after it; `said` has what an earlier relay read of it, and gets what is read now."""
    reader = HelloReader()
    if said and (hello := reader.feed(bytes(said))) is not None:
        return hello, reader.rest
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
        said += chunk
        hello = reader.feed(chunk)
        if hello is not None:
            return hello, reader.rest


def _answer(connection: Connection, hello: Hello, refusal: Refusal) -> None:
    if hello.wants_answer:
        _send(connection, bytes((hello.id, refusal)))


def _send(connection: Connection, answer: bytes) -> None:
    # Nothing was sent before, so there is room; a client that is gone is not answered.
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
