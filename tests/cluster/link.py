"""A way to an engine that can be cut: a proxy for TCP connections to a port of the loopback interface."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Link:
    """It carries connections to `port` until it is cut, and refuses them then. A thread copies each direction."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.mend()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections, and refuse others, before this returns."""
        with self._lock:
            listener, self._listener = self._listener, None
            ended, self._open = self._open, set()
        for sock in {listener, *ended} - {None}:
            assert sock is not None
            _end(sock)

    def mend(self) -> None:
        """Carry connections again."""
        listener = self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._start(self._accept, listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads = [*(old for old in self._threads if old.is_alive()), thread]
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError), listener:
            while True:
                ours, _ = listener.accept()
                try:
                    theirs = socket.create_connection(("127.0.0.1", self._target), 5)
                except OSError:
                    ours.close()
                    continue
                theirs.settimeout(None)
                with self._lock:
                    if self._listener is not listener:
                        ours.close()
                        theirs.close()
                        return
                    self._open |= {ours, theirs}
                self._start(self._copy, ours, theirs)
                self._start(self._copy, theirs, ours)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for sock in (source, target):
            _end(sock)
        with self._lock:
            self._open -= {source, target}


def _end(sock: socket.socket) -> None:
    """End what waits in other threads for a socket, and close it."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
