"""What is measured: the relay in its variants, the two yardsticks, the peers, on free ports and private sockets.

1. A server lives for one measurement, in a directory of its own that goes with it.
2. No code waits for a ready line: the generators try to connect until the server listens.
3. Only processes that were started here are ended: asked first, killed after `END_TIMEOUT`.
4. The peers are set up to their advantage: no log, no persistence, no limit that a flood would meet.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.programs import BUILT, HERE, ROOT, Failed, last_line, pin
from triorelay._build import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The relay drains within 5 s (its default); a peer that takes longer has hung.
END_TIMEOUT = 8.0
START_TIMEOUT = 20.0
CORE = max(os.sched_getaffinity(0))  # the first one handles most interrupts
DIRECT = "direct"  # a generator's address for itself


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server listens: a private directory, and a free port for those that need one."""

    directory: Path
    transport: str
    port: int

    @property
    def socket(self) -> Path:
        return self.directory / "socket"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}" if self.transport == "unix" else f"{self.transport}:127.0.0.1:{self.port}"

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server: what it is called in the table, what it speaks, how it is started."""

    name: str
    codec: str
    transports: tuple[str, ...]
    command: Callable[[Place], list[str]]
    program: str = ""
    compiled: bool = False  # takes part only beside a compiled relay

    def missing(self) -> str | None:
        """Why it can't take part on this machine, or None."""
        if self.program and not shutil.which(self.program, path=SEARCH):
            return f"no program {self.program}"
        if self.compiled and not COMPILED:
            return "nothing is compiled here, so that is what `triorelay` is (make compiled)"
        return None


@dataclass(frozen=True, slots=True)
class Running:
    """A started server, the process that it is, and when that was started (monotonic clock, seconds)."""

    place: Place
    process: subprocess.Popen[bytes]
    since: float

    @property
    def address(self) -> str:
        return self.place.address

    def wait_until_it_listens(self) -> None:
        """Return when it takes connections; Failed if it does not."""
        family, address = (
            (socket.AF_UNIX, str(self.place.socket))
            if self.place.transport == "unix"
            else (socket.AF_INET, ("127.0.0.1", self.place.port))
        )
        while time.monotonic() < self.since + START_TIMEOUT and self.process.poll() is None:
            with socket.socket(family) as probe:
                if probe.connect_ex(address) == 0:
                    return
            time.sleep(0.01)
        raise Failed("it does not listen")

    def epitaph(self) -> str:
        """What became of it, for a failure's line; nothing while it runs."""
        status = self.process.poll()
        if status is None:
            return ""
        log = (self.place.directory / "log").read_text(errors="replace")
        return f"; the server ended with status {status}: {last_line(log)}"


# Daemons are in sbin, which is not on every user's path.
SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _found(program: str) -> str:
    return shutil.which(program, path=SEARCH) or program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def certificate() -> tuple[str, str]:
    """A self-signed certificate and its key, made once a run next to the built programs."""
    certificate, key = BUILT / "certificate.pem", BUILT / "key.pem"
    command = ["openssl", "req", "-x509", "-days", "2", "-subj", "/CN=localhost", "-nodes"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(certificate), "-keyout", str(key)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise Failed("no certificate for TLS: the program openssl is missing or failed") from None
    return str(certificate), str(key)


def _relay(place: Place, admin: str = "none", program: tuple[str, ...] = ("-m", "triorelay")) -> list[str]:
    where = str(place.socket) if place.transport == "unix" else f"127.0.0.1:{place.port}"
    command = [sys.executable, *program, "serve", f"--{place.transport}", where, "--admin", admin]
    if place.transport == "tls":
        path, key = certificate()
        command += ["--tls-cert", path, "--tls-key", key]
    return command


def _pure_relay(place: Place) -> list[str]:
    return _relay(place, program=(str(HERE / "pure_relay.py"),))


def _relay_with_admin(place: Place) -> list[str]:
    return _relay(place, f"unix:{place.directory}/admin")


def _ideal(place: Place) -> list[str]:
    return [str(BUILT / "ideal_relay"), f"unix:{place.socket}" if place.transport == "unix" else f"tcp:{place.port}"]


def _article(place: Place) -> list[str]:
    return [str(BUILT / "article_server"), str(place.socket)]


def _nats(place: Place) -> list[str]:
    text = f'host: "127.0.0.1"\nport: {place.port}\nping_interval: "1h"\nmax_pending: 1GB\n'
    return [_found("nats-server"), "--config", place.write("nats.conf", text)]


def _mosquitto(place: Place) -> list[str]:
    listener = f"listener 0 {place.socket}" if place.transport == "unix" else f"listener {place.port} 127.0.0.1"
    text = f"{listener}\nallow_anonymous true\nset_tcp_nodelay true\n"
    text += "max_queued_messages 0\npersistence false\nlog_type error\n"
    if os.getuid() == 0:
        text += "user root\n"  # another user could not enter the private directory
    return [_found("mosquitto"), "-c", place.write("mosquitto.conf", text)]


def _redis(place: Place) -> list[str]:
    port = 0 if place.transport == "unix" else place.port
    text = f"bind 127.0.0.1\nport {port}\nunixsocket {place.socket}\ndir {place.directory}\n"
    text += 'save ""\nappendonly no\ndaemonize no\nclient-output-buffer-limit pubsub 0 0 0\n'
    return [_found("redis-server"), place.write("redis.conf", text)]


def _dbus(place: Place) -> list[str]:
    text = f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={place.socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
"""
    return [_found("dbus-daemon"), "--nofork", "--nopidfile", "--config-file", place.write("bus.conf", text)]


RELAY = Server("triorelay", "frames", ("unix", "tcp", "tls"), _relay)
RELAY_PURE = Server("triorelay, pure Python", "frames", ("unix",), _pure_relay, compiled=True)
RELAY_UNWATCHED = Server("triorelay, nobody watching", "frames", ("unix",), _relay_with_admin)
RELAY_WATCHED = replace(RELAY_UNWATCHED, name="triorelay, monitor attached")
IDEAL = Server("ideal C", "frames", ("unix", "tcp"), _ideal)
ARTICLE = Server("article's C server", "frames", ("unix",), _article)
NATS = Server("NATS", "nats", ("tcp",), _nats, "nats-server")
MOSQUITTO = Server("mosquitto", "mqtt", ("unix", "tcp"), _mosquitto, "mosquitto")
DBUS = Server("dbus-daemon", "dbus", ("unix",), _dbus, "dbus-daemon")
REDIS = Server("Redis", "redis", ("unix", "tcp"), _redis, "redis-server")
PEERS = (NATS, MOSQUITTO, DBUS, REDIS)


# As after its first start: Python keeps the bytecode that it made.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@contextlib.contextmanager
def running(server: Server, transport: str, *, core: int | None = None) -> Iterator[Running]:
    """Start a server for the length of the block, on one core only if asked; Failed if it can't be started."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Place(Path(name), transport, _free_port())
        with open(place.directory / "log", "wb") as log:
            since = time.monotonic()
            process = subprocess.Popen(
                [*pin(core), *server.command(place)],
                cwd=ROOT,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started = Running(place, process, since)
        try:
            yield started
        except Failed as failure:
            raise Failed(f"{failure}{started.epitaph()}") from None
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end; kill it when it does not."""
    process.terminate()
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
