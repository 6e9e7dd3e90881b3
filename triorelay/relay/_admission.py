"""From a new connection to a session with an id.

1. A connection without an id is pending (`_pending`). It has `hello_timeout` in all for the TLS handshake, the hello
   and the check of its token. Until then the relay keeps at most `HELLO_BYTES` of it; with TLS, one record. If the
   relay itself was stopped meanwhile, the connection gets the time once more, because its hello may have come in time.
2. A client that bound a path, or has an entry in the address map, has an id without a hello; every other client sends
   one. `_claims` decides on both. A claim begins as soon as the hello is complete. If that is so at accept, the claim
   begins at accept, so claims keep the order of accept.
3. The relay accepts no more connections than it can serve: a connection that ends keeps its place until it is closed.
4. If the hello asked for an answer, the relay answers a refusal. Then it discards input for a moment, because closing a
   connection with unread input would discard the answer. A client that sent no hello in time is closed without one.
"""

import logging
import os
import socket
from contextlib import suppress

import trio

from ..protocol import CloseReason, Hello, HelloOption, Refusal, decode_hello, id_name
from ..protocol._hello import BadHello
from ._buckets import Buckets
from ._claims import Claims
from ._client_file import THREADS, remove_client_file
from ._client_task import run_session
from ._config import PRIVATE_NETWORKS
from ._connection import Connection, Peer, SocketConnection
from ._exchange import PLACES
from ._log import Throttle
from ._pending import Arrival, origin_of
from ._policy import AddressRefused, Refused, UnknownToken
from ._pump import Poller
from ._relay import Relay
from ._session import Session
from ._tls import TlsConnection
from ._tls import reason as tls_reason

HELLO_BYTES = 512
ACCEPTS_A_STEP = 16
"""Each costs about 100 µs, and connected clients wait meanwhile."""
ENDING = 64
"""Connections that may be ending, besides those with and without an id: this bounds the descriptors in use."""
IN_LINE = 64
"""Claims that may wait for ids that are about to be free, before the relay stops accepting connections."""
LINGER_SECONDS = 1.0
"""Longer than the rest of what a client sends without waiting is on its way."""
LINGER_BYTES = 65536
OVERSLEPT = 0.5
"""Seconds: if the relay notices a deadline so much too late, it was itself stopped, or too busy."""


class Admission:
    """Takes the connections of one relay's listeners, and serves them to their end."""

    def __init__(self, relay: Relay, sessions: trio.Nursery, poller: Poller) -> None:
        """Serve each connection in a task of its own in `sessions`; the caller closes `poller`, which is for hellos."""
        self._relay = relay
        self._poller = poller
        self._waiting: dict[int, Arrival] = {}
        self._connections: set[Connection] = set()
        self._most = PLACES + relay.config.max_pending + ENDING
        self._ended = trio.lowlevel.ParkingLot()
        self._last = 0
        self._sessions = sessions
        self._claims = Claims(relay)
        self._handshakes = trio.Lock()
        self._threads = trio.CapacityLimiter(THREADS)
        self._accept_log = Throttle(trio.current_time, interval=1)
        self._refusal_log = Throttle(trio.current_time, interval=0.5, burst=20)
        self._address_log = Throttle(trio.current_time, interval=0.5, burst=20)
        self._bug_log = Throttle(trio.current_time, interval=1, burst=5)
        self._address_lines = Buckets(trio.current_time, interval=60)

    # -- what a listener asks

    @property
    def accepts(self) -> int:
        """How many connections a listener may take in one step."""
        # Each connection may join, which is an event for every subscriber. Claims that are decided soon come first, so
        # that connections behind them use up no places of their address.
        room = min(self._most - len(self._connections), IN_LINE - self._claims.in_line)
        return min(room, max(1, ACCEPTS_A_STEP // (1 + len(self._relay.exchange.registry.subscribers) // 16)))

    async def room(self) -> None:
        """Wait until there is room for one more connection."""
        while self.accepts <= 0:
            await self._ended.park()

    def accept(self, sock: socket.socket, peer: Peer) -> None:
        """Serve the client at `sock`, if its address may connect at all; the socket is closed at the end."""
        if not self._relay.policy.admits(peer):
            self._note_address(peer)
            sock.close()
            return
        try:
            connection = self._connection(sock, peer)
        except OSError:
            sock.close()
        else:
            self.enter(connection)

    def _connection(self, sock: socket.socket, peer: Peer) -> Connection:
        if peer.transport == "tls":
            assert self._relay.tls is not None
            return TlsConnection(sock, peer, self._relay.tls)
        return SocketConnection(sock, peer)

    def enter(self, connection: Connection) -> None:
        """Serve `connection`, which is closed at the end."""
        # A client that has its id by its path is connected from the moment of its connect, as with a server that polls
        # its listener before its clients: a frame sent to it in that moment arrives. The relay reads hellos that came
        # before first, so that this client overtakes no claim.
        self._read_hellos()
        self._last += 1
        arrival = Arrival(connection, self._last)
        arrival.said = self._relay.pending.arrivals.setdefault(connection, arrival.said)
        try:
            self._relay.pending.take(arrival)
        except Refused as refused:
            self._relay.pending.leave(arrival)
            self._note(connection.peer, refused)
            connection.close()
            return
        id = self._relay.policy.id_without_hello(connection.peer)
        if id:
            arrival.mapped, arrival.hello = True, Hello(id, HelloOption.NONE)
            self._claims.begin(arrival)
        elif not isinstance(connection, TlsConnection):
            self._read(arrival)
        session = self._claims.at_once(arrival)
        if session is not None:
            self._forget(arrival)
        self._connections.add(connection)
        self._sessions.start_soon(self._serve, connection, session or arrival)

    def resume(self, session: Session) -> None:
        """Serve a session that another relay handed over."""
        self._connections.add(session.connection)
        self._sessions.start_soon(self._serve, session.connection, session)

    def cannot_accept(self, address: str, error: OSError) -> None:
        """Log that the system has no descriptors or memory left for another connection."""
        reason = os.strerror(error.errno or 0)
        self._accept_log.log(logging.WARNING, "cannot accept", listener=address, reason=reason)

    # -- its task

    async def _serve(self, connection: Connection, entering: Arrival | Session) -> None:
        """Serve one connection from accept to close; it may be that of a session already.

        Raises nothing but Cancelled: an error ends this session alone.
        """
        session = None
        try:
            session = entering if isinstance(entering, Session) else await self._admit(entering)
            del entering  # for as long as the client stays it would keep 0.7 KB that nothing needs any more
            if session is not None:
                await run_session(self._relay, session)
                await remove_client_file(connection.peer, self._relay.config.unix, self._threads)
        except Exception as error:
            transport = connection.peer.transport
            self._bug_log.bug(error, "bug in a session", transport=transport)
            if session is None:
                self._relay.sessions_ended[transport, CloseReason.ERROR.label] += 1
        finally:
            connection.close()
            self._connections.discard(connection)
            self._ended.unpark_all()

    def _forget(self, arrival: Arrival) -> None:
        """Release everything that a connection without an id has."""
        self._unwatch(arrival)
        self._relay.pending.leave(arrival)
        self._claims.drop(arrival)

    async def _admit(self, arrival: Arrival) -> Session | None:
        """Return the registered session of a connection, or None if it gets none."""
        try:
            with arrival.place:
                return await self._claim(arrival)
            crowded = CloseReason.DRAINING if self._relay.draining else CloseReason.CROWDED_OUT
            self._relay.sessions_ended[arrival.connection.peer.transport, crowded.label] += 1
            return None
        finally:
            self._forget(arrival)

    async def _claim(self, arrival: Arrival) -> Session | None:
        """Return the registered session of a connection, or None if the relay refused it or the client left."""
        relay, connection = self._relay, arrival.connection
        try:
            await self._hear(arrival)
            if arrival.error is not None:
                raise arrival.error
            return await self._claims.settle(arrival)
        except (EOFError, Refused, BadHello, trio.TooSlowError) as error:
            relay.pending.arrivals.pop(connection, None)
            self._claims.drop(arrival)
            await self._turn_away(connection, arrival.hello, error)
            return None
        except trio.Cancelled:
            if relay.draining:
                _answer(connection, arrival.hello, Refusal.DRAINING)
            raise

    async def _hear(self, arrival: Arrival) -> None:
        """Agree on keys, and wait for the hello, or raise TooSlowError."""
        connection, is_secure = arrival.connection, False
        while True:
            with trio.move_on_after(self._relay.config.hello_timeout or float("inf")) as scope:
                if isinstance(connection, TlsConnection) and not is_secure:
                    await self._shake_hands(connection)
                    is_secure = True
                await self._hello(arrival)
                if isinstance(arrival.error, UnknownToken):
                    await self._claims.slow_down(connection.peer)
                return
            if trio.current_time() - scope.deadline < OVERSLEPT:
                raise trio.TooSlowError

    async def _hello(self, arrival: Arrival) -> None:
        """Wait until the hello has come and its claim has begun, or is decided."""
        try:
            self._read(arrival)
            while not arrival.decided:
                with trio.CancelScope() as arrival.wait:
                    await arrival.connection.wait_readable()
                self._read(arrival)
        finally:
            self._unwatch(arrival)

    def _unwatch(self, arrival: Arrival) -> None:
        if self._waiting.pop(arrival.connection.fileno, None) is not None:
            self._poller.unregister(arrival.connection)

    def _read_hellos(self) -> None:
        if self._waiting:
            for descriptor, _ in self._poller.poll(0, len(self._waiting)):
                self._read(self._waiting[descriptor])

    def _read(self, arrival: Arrival) -> None:
        """Read what has come of a hello, and begin its claim; or watch for the rest, until `_unwatch`."""
        if arrival.decided:
            return
        try:
            while (found := decode_hello(arrival.said)) is None:
                chunk = arrival.connection.recv_nowait(HELLO_BYTES - len(arrival.said))
                if not chunk:
                    raise EOFError
                arrival.said += chunk
        except BlockingIOError:
            if arrival.connection.fileno not in self._waiting:
                self._poller.register(arrival.connection)
                self._waiting[arrival.connection.fileno] = arrival
            return
        except OSError:
            arrival.decided, arrival.error = True, EOFError()
        except (EOFError, BadHello) as error:
            arrival.decided, arrival.error = True, error
        else:
            arrival.hello, arrival.rest = found
            self._claims.begin(arrival)
        arrival.wait.cancel()

    async def _shake_hands(self, connection: TlsConnection) -> None:
        try:
            await connection.handshake(self._handshakes)
        except ConnectionAbortedError:
            raise EOFError from None
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
            case _:  # it left without a hello
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
            facts["hint"] = "it has no name: if it binds one, remove the socket file of its earlier run"
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


def _answer(connection: Connection, hello: Hello, refusal: Refusal) -> None:
    if hello.wants_answer:
        _send(connection, bytes((hello.id, refusal)))


def _send(connection: Connection, answer: bytes) -> None:
    # Nothing was sent before, so there is room; a client that has left gets no answer.
    with suppress(OSError):
        connection.send_nowait(answer)


async def _linger(connection: Connection) -> None:
    """Discard what still comes for a moment: to close a connection with unread input would discard the answer."""
    discarded = 0
    with trio.move_on_after(LINGER_SECONDS), suppress(OSError):
        while discarded < LINGER_BYTES:
            await connection.wait_readable()
            with suppress(BlockingIOError):
                chunk = connection.recv_nowait(4096)
                if not chunk:
                    return
                discarded += len(chunk)
