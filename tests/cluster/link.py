"""A way to an engine that can be cut: a proxy for TCP connections to a port, in a thread of its own."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from typing import Self


class Link:
    """It carries connections to `port` of the loopback interface until it is cut, and refuses them then."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._orders: list[threading.Event] = []
        self._wake, waker = socket.socketpair()
        self._selector.register(waker, selectors.EVENT_READ)
        self._waker = waker
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._is_cut = self._ends = False
        self._thread = threading.Thread(target=self._carry, daemon=True)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections, and refuse others, before this returns."""
        self._is_cut = True
        self._order()

    def mend(self) -> None:
        """Carry connections again."""
        self._is_cut = False
        self._order()

    def _order(self) -> None:
        done = threading.Event()
        self._orders.append(done)
        self._wake.send(b"!")
        assert done.wait(60)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ends = True
        self.cut()
        self._thread.join()
        self._selector.close()
        self._wake.close()
        self._waker.close()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def _carry(self) -> None:
        while not self._ends:
            for key, _ in self._selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._waker:
                    self._waker.recv(100)
                    self._obey()
                elif sock is self._listener:
                    self._connect()
                elif sock in self._pairs:
                    self._pass_on(sock)

    def _obey(self) -> None:
        if self._is_cut:
            for sock in list(self._pairs):
                self._end(sock)
            if self._listener.fileno() >= 0:
                self._selector.unregister(self._listener)
                self._listener.close()
        elif self._listener.fileno() < 0:
            self._listener = self._listen(self.port)
        while self._orders:
            self._orders.pop().set()

    def _connect(self) -> None:
        ours, _ = self._listener.accept()
        try:
            theirs = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            ours.close()
            return
        for sock, other in ((ours, theirs), (theirs, ours)):
            self._pairs[sock] = other
            self._selector.register(sock, selectors.EVENT_READ)

    def _pass_on(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 16)
            if data:
                self._pairs[sock].sendall(data)
                return
        except OSError:
            pass
        self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        other = self._pairs.pop(sock, None)
        if other is not None:
            for end in (sock, other):
                self._pairs.pop(end, None)
                with suppress(KeyError, ValueError):
                    self._selector.unregister(end)
                end.close()
