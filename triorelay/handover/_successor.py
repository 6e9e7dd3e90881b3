"""The successor's part: it takes the state of the old relay, and serves once that relay has ended.

1. `inherit` comes first, after all modules are loaded and the settings are read: from the offer on no relay serves.
2. The old relay's listening sockets go to `LISTENING`, where code that opens a listener finds them. Then the relay is
   made as always, and `begin` gives it the state in the step before it serves.
3. Until `begin` is done every failure leaves the old relay serving, and this process ends without touching what it got.
"""

import errno
import os
import socket
from typing import Self

import trio

from .. import _version
from ..relay import (
    LISTENING,
    ConfigError,
    Connection,
    ListeningSocket,
    Relay,
    SocketConnection,
    UnixAddress,
    credentials,
    restore,
)
from ._conversation import HandoverFailed, PredecessorDied
from ._drive import Inheritance, take_over
from ._state import READABLE, BadState, HandoverState, decode

TRIES = 5
"""Attempts: a relay that is just handing over to another successor ends; the next attempt finds that successor."""


def inherit(path: str) -> "Succession | None":
    """Take over from the relay that listens for a successor at `path`; None if none does.

    The caller enters the succession as a block, in which the relay is made.

    Raises:
        ConfigError: there is one, and it continues; one line says why.
    """
    for _ in range(TRIES):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(UnixAddress(path).name)
        except OSError as error:
            sock.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return None
            raise ConfigError(f"cannot take over at {path}: {error.strerror}") from None
        _, uid = credentials(sock)
        if os.geteuid() not in (0, uid) and uid != 0:
            sock.close()
            raise ConfigError(f"the relay at {path} belongs to uid {uid}: run the successor as that user, or as root")
        try:
            inheritance = take_over(sock, READABLE, _version.__version__)
        except PredecessorDied:
            continue
        except HandoverFailed as failure:
            raise ConfigError(f"the relay at {path} continues: {failure}") from None
        return Succession(inheritance)
    raise ConfigError(f"each relay at {path} ended when this one asked it to hand over")


class Succession:
    """A successor between the offer and `go`.

    Attributes:
        release: of the old relay.
        sockets: what a supervisor had given to the old relay.
        is_done: whether this process serves.
    """

    def __init__(self, inheritance: Inheritance) -> None:
        """Read the state, and put what listens where listeners are opened.

        Raises:
            ConfigError: it cannot be read; the old relay continues.
        """
        self.is_done: bool = False
        self.sockets: list[socket.socket] = []
        self._inheritance = inheritance
        try:
            self._state = decode(inheritance.state)
            self._connections = _connections(self._state, inheritance.descriptors)
            self._take_listeners(self._state, inheritance.descriptors)
        except (BadState, IndexError, OSError) as error:
            self._give_up(f"the state cannot be used: {error}")
            raise ConfigError(f"the old relay continues: its state cannot be used: {error}") from None
        inheritance.descriptors.clear()
        self.release: str = self._state.release

    def _take_listeners(self, state: HandoverState, descriptors: list[int]) -> None:
        LISTENING.owns_paths = False
        for listener in state.listeners:
            sock = socket.socket(fileno=descriptors[listener.socket])
            keeper = listener.keeper and (descriptors[listener.keeper[0]], descriptors[listener.keeper[1]])
            if listener.given:
                self.sockets.append(sock)
            else:
                LISTENING.inherited.append(ListeningSocket(sock, listener.place, keeper))

    def begin(self, relay: Relay) -> None:
        """Let `relay` continue from the state, and return once the old relay is gone. Blocks.

        Raises:
            ConfigError: the old relay continues, and this process has to end.
        """
        try:
            restore(relay, self._state.relay, self._connections)
        except (IndexError, KeyError, ValueError) as error:
            raise ConfigError(f"the old relay continues: its state contradicts itself: {error!r}") from None
        try:
            self._inheritance.confirm()
        except HandoverFailed as failure:
            raise ConfigError(f"the old relay continues: {failure}") from None
        self.is_done = LISTENING.owns_paths = True
        relay.took_over = self.release, trio.current_time()
        LISTENING.close_rest()
        self._inheritance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self.is_done:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._give_up(str(error or "the successor ended"))

    def _give_up(self, reason: str) -> None:
        self._inheritance.refuse(reason)
        self._inheritance.close()


def _connections(state: HandoverState, descriptors: list[int]) -> list[Connection]:
    peers = state.peers
    return [
        SocketConnection(socket.socket(fileno=descriptor), peer.peer())
        for descriptor, peer in zip(descriptors[: len(peers)], peers, strict=True)
    ]
