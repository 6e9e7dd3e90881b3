"""The protocol between systemd and a service: sd_listen_fds(3) and sd_notify(3), without systemd's library.

1. Sockets are passed as the descriptors from 3 on; `LISTEN_FDS` counts them, `LISTEN_PID` names the process for them.
   They belong to the unit: the relay closes its own descriptors, and never unlinks a path.
2. Readiness, stopping and signs of life go as datagrams to the socket that `NOTIFY_SOCKET` names. A datagram that
   cannot be sent is ignored.
3. The variables are removed when they are read, because they are not meant for children of this process.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from ..protocol import ConfigError

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START: what comes after the three standard streams."""

READY = b"READY=1"
STOPPING = b"STOPPING=1"
ALIVE = b"WATCHDOG=1"


def meant_for(environment: Mapping[str, str]) -> str:
    """Return the process that sockets were handed over to, if that is another one; empty otherwise."""
    pid = environment.get("LISTEN_PID", "")
    return pid if environment.get("LISTEN_FDS") and pid != str(os.getpid()) else ""


def take_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd handed over to this process; the caller closes them."""
    pid, count = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdecimal()):
        raise ConfigError(f"LISTEN_FDS: expected the number of sockets, not {count!r}")
    taken: list[socket.socket] = []
    for index in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + index
        try:
            os.set_inheritable(descriptor, False)
            taken.append(socket.socket(fileno=descriptor))
        except OSError as error:
            for sock in taken:
                sock.close()
            name = f" ({names[index]})" if index < len(names) and names[index] else ""
            raise ConfigError(f"descriptor {descriptor}{name} of LISTEN_FDS is no socket: {error.strerror}") from None
    return taken


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The supervisor that gets the state of the process; none if `address` is empty.

    Attributes:
        address: of a Unix datagram socket; one that begins with a zero is a name of the abstract namespace.
        watchdog: seconds of silence after which the process counts as hung; None without a watchdog.
    """

    address: str = ""
    watchdog: float | None = None

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> "Supervisor":
        """Return the supervisor that the variables name."""
        address, microseconds, pid = (
            environment.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        watched = microseconds.isascii() and microseconds.isdecimal() and pid in ("", str(os.getpid()))
        return cls(
            f"\0{address[1:]}" if address.startswith("@") else address,
            int(microseconds) / 1e6 if watched and int(microseconds) else None,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name it, for a process that replaces this one."""
        if not self.address:
            return {}
        watchdog = {} if self.watchdog is None else {"WATCHDOG_USEC": str(int(self.watchdog * 1e6))}
        return {"NOTIFY_SOCKET": re.sub("^\0", "@", self.address), **watchdog}

    def tell_now(self, word: bytes) -> None:
        """Send one message if there is room."""
        if self.address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.connect(self.address)
                sock.send(word)

    async def tell(self, word: bytes) -> None:
        """Send one message, waiting for room."""
        if not self.address:
            return
        with suppress(OSError), trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            await sock.connect(self.address)
            await sock.send(word)

    async def keep_informed(self) -> None:
        """Send signs of life, twice as often as systemd asks, until cancelled."""
        if self.watchdog is None:
            return
        while True:
            await self.tell(ALIVE)
            await trio.sleep(self.watchdog / 2)


_DETACH = """
import os, sys
pipe = int(sys.argv[1])
if pid := os.fork():
    os.write(pipe, b"%d" % pid)
else:
    os.close(pipe)
    os.execv(sys.argv[2], sys.argv[2:])
"""


async def run_detached(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a program as a child of the supervisor, by a process between that ends at once, until the program ends.

    systemd stops a main process that is no child of its own by SIGKILL, and waits for no drain. Cancelled sends it
    SIGTERM.
    """
    reader, writer = os.pipe()
    try:
        between = [sys.executable, "-I", "-S", "-c", _DETACH, str(writer), *command]
        await trio.run_process(between, env=environment, stdin=subprocess.DEVNULL, pass_fds=(writer,))
        pid = int(os.read(reader, 20))
    finally:
        os.close(reader)
        os.close(writer)
    with suppress(ProcessLookupError):  # it has ended already
        process = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(process)
        except trio.Cancelled:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            raise
        finally:
            os.close(process)
