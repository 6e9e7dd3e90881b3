"""Relays that get what systemd gives: sockets that listen already, and a socket for their words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from tests.cli import processes
from tests.cli.processes import RelayProcess, environment
from tests.watchdog import watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FIRST = 3
"""The first descriptor that is handed over."""

# What systemd does between fork and exec, once the descriptors are numbered from 3 on: count them, name the process.
# The first word is LISTEN_FDS, the second LISTEN_PID (empty: the process itself).
HAND_OVER = """
import os, sys
count, pid, *command = sys.argv[1:]
os.environ.update(LISTEN_FDS=count, LISTEN_PID=pid or str(os.getpid()), LISTEN_FDNAMES="first:second:third")
os.execv(command[0], command)
"""


def unix_listener(path: Path | str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def tcp_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def numbered(descriptors: Sequence[int]) -> None:
    """Put the descriptors where systemd puts them; runs in the child."""
    spare = [os.dup2(descriptor, 100 + index) for index, descriptor in enumerate(descriptors)]
    for index, descriptor in enumerate(spare):
        os.dup2(descriptor, FIRST + index)


@contextmanager
def activated(
    listeners: Sequence[socket.socket | IO[str]],
    *arguments: str,
    cwd: Path,
    settings: dict[str, str] | None = None,
    pid: str = "",
    count: str | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run `triorelay serve` with sockets handed over, for the length of the block."""
    words = [count if count is not None else str(len(listeners)), pid, *processes.command("serve", *arguments)]
    descriptors = [listener.fileno() for listener in listeners]
    with watched(
        subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, *words],
            cwd=cwd,
            env=environment(settings or {}),
            stderr=subprocess.PIPE,
            text=True,
            close_fds=False,
            preexec_fn=lambda: numbered(descriptors),
        )
    ) as process:
        yield process


@contextmanager
def ready(
    listeners: Sequence[socket.socket], *arguments: str, cwd: Path, settings: dict[str, str] | None = None
) -> Iterator[RelayProcess]:
    with activated(listeners, *arguments, cwd=cwd, settings=settings) as process:
        yield RelayProcess(process, RelayProcess(process, "").wait_for("ready"))


def welcomed(client: socket.socket, id: bytes = b"A") -> None:
    client.settimeout(processes.PATIENCE)
    client.sendall(id + b"\x81")
    assert client.recv(2) == id + b"\0"


def greet_unix(path: Path | str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        welcomed(client)


def greet_tcp(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        welcomed(client)


@contextmanager
def supervisor(address: Path | str) -> Iterator[socket.socket]:
    """A socket that words arrive at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as words:
        words.bind(str(address))
        words.settimeout(processes.PATIENCE)
        yield words
