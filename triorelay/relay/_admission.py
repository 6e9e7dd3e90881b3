"""From a new connection to a session with an id.

1. A connection without an id is pending (`_pending`). It has `hello_timeout` in all for the TLS handshake, the hello
   and the check of its token. Until then the relay keeps at most `HELLO_BYTES` of it; with TLS, one record. If the
   relay itself was stopped meanwhile, the connection gets the time once more, because its hello may have come in time.
2. A client that bound a path, or has an entry in the address map, has an id without a hello; every other client sends
   one. `_claims` decides on both. A claim begins as soon as the hello is complete, and a client that waits for nothing
   joins in the same step. One task reads the hellos that come after accept. Before each accept the relay reads all that
   have come, so clients join in the order of their hellos, and claims of one id keep the order of accept.
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
from ._connection import Connection, Peer, SocketConnection, receive_some
from ._exchange import PLACES
from ._log import Throttle
from ._pending import Arrival, origin_of, take_place
from ._policy import AddressRefused, Refused, UnknownToken
from ._pump import Poller
from ._relay import Relay
from ._session import Session
from ._tls import TlsConnection

HELLO_BYTES = 512
JOINS_A_STEP = 16
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
        self._watched: dict[int, Arrival] = {}
        self._connections = 0
        self._most = PLACES + relay.config.max_pending + ENDING
        self._ended = trio.lowlevel.ParkingLot()
        self._sessions = sessions
        self._claims = Claims(relay)
        self._handshakes = trio.Lock()
        self._threads = trio.CapacityLimiter(THREADS)
        self._accept_log = Throttle(interval=1)
        self._refusal_log = Throttle(interval=0.5, burst=20)
        self._address_log = Throttle(interval=0.5, burst=20)
        self._bug_log = Throttle(interval=1, burst=5)
        self._address_lines = Buckets(interval=60)

    # -- what a listener asks

    @property
    def accepts(self) -> int:
        """How many connections a listener may take in one step."""
        # Claims that are decided soon come first, so that connections behind them use up no places of their address.
        return min(self._most - self._connections, IN_LINE - self._claims.in_line, self._joins)

    @property
    def _joins(self) -> int:
        """How many clients may join in one step: each is an event for every subscriber."""
        return max(1, JOINS_A_STEP // (1 + len(self._relay.exchange.registry.subscribers) // 16))

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
        tls = self._relay.tls
        try:
            if peer.transport != "tls":
                connection = SocketConnection(sock, peer)
            else:
                assert tls is not None
                connection = TlsConnection(sock, peer, tls)
        except OSError:
            sock.close()
        else:
            self.enter(connection)

    def enter(self, connection: Connection, said: bytes | bytearray = b"") -> None:
        """Serve `connection`, of which `said` was read already; it is closed at the end."""
        # A client that has its id by its path is connected from the moment of its connect, as with a server that polls
        # its listener before its clients: a frame sent to it in that moment arrives. The relay reads hellos that came
        # before first, so that this client overtakes no claim.
        self._read_hellos(len(self._watched))
        arrival = Arrival(connection, bytearray(said))
        try:
            take_place(self._relay.arrivals, arrival, self._relay.config)
        except Refused as refused:
            self._note(connection.peer, refused)
            connection.close()
            return
        self._connections += 1
        if id := self._relay.policy.id_without_hello(connection.peer):
            arrival.mapped = True
            self._begin(arrival, Hello(id, HelloOption.NONE))
        elif not isinstance(connection, TlsConnection):
            self._read(arrival)
        if not arrival.joined:
            self._sessions.start_soon(self._admit, arrival)

    def resume(self, session: Session) -> None:
        """Serve a session that another relay handed over."""
        self._connections += 1
        self._sessions.start_soon(self._run, session)

    def cannot_accept(self, address: str, error: OSError) -> None:
        """Log that the system has no descriptors or memory left for another connection."""
        reason = os.strerror(error.errno or 0)
        self._accept_log.log(logging.WARNING, "cannot accept", listener=address, reason=reason)

    # -- hellos

    async def read_hellos(self) -> None:
        """Read the hellos that come after accept, until cancelled."""
        while True:
            await self._poller.wait()
            self._read_hellos(self._joins)

    def _read_hellos(self, at_most: int) -> None:
        if at_most:
            for descriptor, _ in self._poller.poll(0, at_most):
                arrival = self._watched[descriptor]
                self._unwatch(arrival)
                self._read(arrival)

    def _unwatch(self, arrival: Arrival) -> None:
        if self._watched.pop(arrival.connection.fileno, None) is not None:
            self._poller.unregister(arrival.connection)

    def _read(self, arrival: Arrival) -> None:
        """Read what has come of a hello, and begin its claim; or watch for the rest."""
        connection = arrival.connection
        try:
            while (found := decode_hello(arrival.said)) is None:
                chunk = connection.recv_nowait(HELLO_BYTES - len(arrival.said))
                if not chunk:
                    raise EOFError
                arrival.said += chunk
        except BlockingIOError:
            self._poller.register(connection)
            self._watched[connection.fileno] = arrival
        except (OSError, EOFError, BadHello) as error:
            arrival.error = EOFError() if isinstance(error, OSError) else error
            arrival.heard.set()
        else:
            hello, arrival.rest = found
            self._begin(arrival, hello)

    def _begin(self, arrival: Arrival, hello: Hello) -> None:
        """Begin the claim of `hello`, and join the client if it has nothing to wait for."""
        arrival.hello = hello
        try:
            session = self._claims.begin(arrival)
        except Refused as refused:
            arrival.error = refused
        else:
            if session is not None:
                self._join(arrival, session)
        arrival.heard.set()

    def _join(self, arrival: Arrival, session: Session) -> None:
        """Run the session in a task of its own; that of the connection without an id ends."""
        arrival.joined = True
        self._forget(arrival)
        self._sessions.start_soon(self._run, session)

    def _forget(self, arrival: Arrival) -> None:
        """Release everything that a connection without an id has."""
        self._unwatch(arrival)
        self._relay.arrivals.pop(arrival, None)
        self._claims.drop(arrival)

    # -- the task of a connection without an id

    async def _admit(self, arrival: Arrival) -> None:
        """Serve a connection until a session has it, or it is closed. Raises nothing but Cancelled."""
        connection, ended = arrival.connection, self._relay.sessions_ended
        transport = connection.peer.transport
        try:
            with arrival.place:
                await self._claim(arrival)
            if arrival.place.cancelled_caught and not arrival.refused:
                ended[transport, (CloseReason.DRAINING if self._relay.draining else CloseReason.CROWDED_OUT).label] += 1
                if self._relay.draining:
                    _send(connection, _refusal(arrival.hello, Refusal.DRAINING))
        except Exception as error:
            self._bug_log.bug(error, "bug in a session", transport=transport)
            ended[transport, CloseReason.ERROR.label] += 1
        finally:
            if not arrival.joined:
                self._forget(arrival)
                self._close(connection)

    async def _claim(self, arrival: Arrival) -> None:
        """Get a session for a connection, or refuse it."""
        peer = arrival.connection.peer
        try:
            await self._hear(arrival)
            if not arrival.joined:
                self._join(arrival, await self._claims.settle(arrival))
        except EOFError:  # it left without a hello
            self._relay.sessions_ended[peer.transport, "no_hello"] += 1
        except trio.TooSlowError:
            self._note(peer, Refused(Refusal.BAD_HELLO, "no hello in time"), CloseReason.HELLO_TIMEOUT.label)
        except BadHello as error:
            await self._refuse(arrival, Refused(Refusal.BAD_HELLO, str(error)), error.answer)
        except Refused as refused:
            await self._refuse(arrival, refused, _refusal(arrival.hello, refused.refusal))

    async def _hear(self, arrival: Arrival) -> None:
        """Agree on keys, and wait until the hello has come and its claim has begun; raise why it gets no id."""
        connection, is_secure = arrival.connection, False
        while True:
            deadline = trio.current_time() + (self._relay.config.hello_timeout or float("inf"))
            with trio.move_on_at(deadline):
                if isinstance(connection, TlsConnection) and not is_secure:
                    arrival.said += await connection.handshake(self._handshakes)
                    is_secure = True
                    self._read(arrival)
                await arrival.heard.wait()
            if arrival.heard.is_set():
                break
            if trio.current_time() < deadline + OVERSLEPT:
                raise trio.TooSlowError
        if isinstance(arrival.error, UnknownToken):
            # Each one from an origin is answered later than the one before. A right token never waits.
            wrong_tokens = self._relay.wrong_tokens
            answer_at = trio.current_time() + wrong_tokens.wait(arrival.origin)
            wrong_tokens.count(arrival.origin)
            await trio.sleep_until(min(answer_at, deadline))
            if answer_at > deadline:
                raise Refused(Refusal.UNAVAILABLE, "too many wrong tokens from this address")
        if arrival.error is not None:
            raise arrival.error

    # -- the task of a session

    async def _run(self, session: Session) -> None:
        """Run a session to its end. Raises nothing but Cancelled: an error ends this session alone."""
        connection = session.connection
        try:
            await run_session(self._relay, session)
            await remove_client_file(connection.peer, self._relay.config.unix, self._threads)
        except Exception as error:
            self._bug_log.bug(error, "bug in a session", transport=connection.peer.transport)
        finally:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        connection.close()
        self._connections -= 1
        self._ended.unpark_all()

    # -- the last words to a client that is refused

    async def _refuse(self, arrival: Arrival, refused: Refused, answer: bytes) -> None:
        """Log and answer a refusal, and discard for a moment what still comes."""
        connection = arrival.connection
        arrival.refused = True
        self._claims.drop(arrival)
        self._note(connection.peer, refused, id=arrival.hello.id)
        _send(connection, answer)
        connection.shut_sending()
        discarded = 0
        with trio.move_on_after(LINGER_SECONDS):
            while discarded < LINGER_BYTES and (chunk := await receive_some(connection, 4096)):
                discarded += len(chunk)

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


def _refusal(hello: Hello, refusal: Refusal) -> bytes:
    return bytes((hello.id, refusal)) if hello.wants_answer else b""


def _send(connection: Connection, answer: bytes) -> None:
    # Nothing was sent before, so there is room; a client that has left gets no answer.
    with suppress(OSError):
        connection.send_nowait(answer)
