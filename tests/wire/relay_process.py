"""The relay as a process: started by its command, watched by its log, stopped by a signal, its ledger checked."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from tests.launcher import SOURCE_TREE as SOURCE_TREE
from tests.launcher import Program
from tests.wire.client import ACK, EVENTS, NONE, PATIENCE, TOKEN, Client

if TYPE_CHECKING:
    from pathlib import Path


class RelayProcess:
    """One run of `triorelay serve`, and the clients that a test connects to it."""

    def __init__(self, directory: Path, *options: str, config: str = "") -> None:
        self.directory = directory
        self.unix_path = str(directory / "server_socket")
        self.ledger: dict[str, int] = {}
        self._clients: list[Client] = []
        self._bound = 0
        self._signaled = False
        if config:
            (directory / "relay.toml").write_text(config)
            options = ("--config", str(directory / "relay.toml"), *options)
        if not any(option.startswith("--tcp") for option in options):
            options = ("--tcp", "127.0.0.1:0", *options)
        options = ("--admin", "none", *options)
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        self._log = ours.makefile(encoding="ascii")
        with theirs:
            self.process = Program[bytes](
                "serve",
                "--unix",
                self.unix_path,
                *options,
                cwd=directory,
                env=os.environ | {"PYTHONPATH": str(SOURCE_TREE)},
                stdin=subprocess.DEVNULL,
                stderr=theirs.fileno(),
            )
        ours.close()
        self.lines: list[str] = []
        try:
            port = re.search(r"tcp:\S*?:(\d+)\b", self.wait_for_line(" ready "))
            assert port is not None
        except BaseException:
            self._end()
            raise
        self.tcp_port = int(port[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self._end()

    def wait_for_line(self, text: str) -> str:
        """Return the first line of the log from here on that has `text` in it."""
        for line in self._log:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"no line has {text!r}:\n{''.join(self.lines)}")

    def wait_for_lines(self, *texts: str) -> None:
        """Wait until the log has had a line with each of `texts`, in any order: two processes may write it."""
        left = set(texts)
        while left:
            line = self.wait_for_line("")
            left -= {text for text in left if text in line}

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._signaled = True
        self.process.send_signal(number)

    def stop(self) -> dict[str, int]:
        """Disconnect all clients, stop the relay unless it stops already, check its exit code and its ledger."""
        if self.process.returncode is None:
            self._close_clients()
            if not self._signaled:
                self.signal()
            self.expect_exit(0)
        return self.ledger

    def expect_exit(self, code: int) -> dict[str, int]:
        """Wait for the end of the process, which was signaled already; check and return the ledger."""
        self.lines += self._log
        found = self.process.wait(PATIENCE)
        assert found == code, "".join(self.lines)
        assert "Traceback" not in "".join(self.lines), "".join(self.lines)
        last = self.lines[-1]
        assert last.startswith("ledger "), last
        self.ledger = {key: int(value) for key, value in re.findall(r"(\S+)=(\d+)", last)}
        assert self.ledger["queued"] == 0, last
        dropped = sum(frames for key, frames in self.ledger.items() if key.startswith("dropped."))
        assert self.ledger["accepted"] + self.ledger["copied"] == self.ledger["written"] + dropped, last
        return self.ledger

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close_clients()
        self._log.close()
        sys.stdout.writelines(self.lines)  # pytest shows it where a test fails

    # -- connections

    def _new(self, family: socket.AddressFamily) -> Client:
        client = Client(socket.socket(family))
        self._clients.append(client)
        return client

    def unix(self, bind: str | bytes | None = None) -> Client:
        """Connect by Unix, bound to exactly that path or abstract name."""
        client = self._new(socket.AF_UNIX)
        if bind is not None:
            client.socket.bind(bind)
        client.socket.connect(self.unix_path)
        return client

    def bound(self, name: bytes) -> Client:
        """Connect by Unix the article's way, bound to `name` in an empty directory."""
        self._bound += 1
        place = os.fsencode(self.directory / f"b{self._bound}")
        os.mkdir(place)
        return self.unix(os.path.join(place, name))

    def article(self, id: bytes) -> Client:
        """Connect as `bound` does, and wait until the id is taken."""
        client = self.bound(id)
        client.settle(id)
        return client

    def tcp(self, source: str = "127.0.0.1", host: str = "127.0.0.1") -> Client:
        """Connect by TCP from the address `source`."""
        client = self._new(socket.AF_INET)
        client.socket.bind((source, 0))
        client.socket.connect((host, self.tcp_port))
        return client

    def hello(self, id: bytes, options: int = ACK, *, tcp: bool = False, token: bytes = b"") -> Client:
        """Connect and say hello, no more: what the relay answers is for the test to read."""
        client = self.tcp() if tcp else self.unix()
        if token:
            client.send(id, bytes((0x80 | options | TOKEN, len(token))), token)
        else:
            client.send(id, bytes((0x80 | options,)))
        return client

    def claim(self, id: bytes, options: int = ACK, *, tcp: bool = False, token: bytes = b"") -> Client:
        """Connect, say hello, and read the welcome; with EVENTS the list of those present too."""
        client = self.hello(id, options, tcp=tcp, token=token)
        if options == NONE:
            client.settle(id)
            return client
        client.expect(id, b"\0")
        if options & EVENTS:
            while client.receive(4) != b"\0\x07\0\0":
                pass
        return client

    def observe(self) -> Client:
        """Connect as an observer and read the list of those present."""
        return self.claim(b"\0", EVENTS)
