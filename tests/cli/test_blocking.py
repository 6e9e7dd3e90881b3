"""The relay's loop waits in one place, for all of its clients: a tracer sees every call of the system that it makes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.cli import processes
from tests.cli.processes import RelayProcess
from tests.cli.test_serve import receive
from tests.relay.in_process import write_tls_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HARMLESS = {
    # Waiting for all clients at once, and what never waits.
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "epoll_create1", "eventfd2", "ioctl", "fcntl"),
    *("close", "shutdown", "dup", "getsockopt", "setsockopt", "getsockname", "getpeername"),
    *("socket", "socketpair", "accept", "accept4"),
    # Memory, time, signals.
    *("brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "clock_gettime", "gettimeofday", "getrandom"),
    *("getpid", "gettid", "getuid", "geteuid", "prlimit64", "getrusage", "sysinfo", "restart_syscall"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "tgkill"),
    # Threads; a futex is the interpreter's lock, which a thread holds for milliseconds at most.
    *("futex", "sched_yield", "clone", "clone3", "set_robust_list", "rseq"),
}
ON_SOCKETS = {
    *("read", "write", "readv", "writev", "recvfrom", "recvmsg", "sendto", "sendmsg"),
    *("connect", "bind", "listen"),
}
"""Harmless on what the relay made non-blocking: sockets, and the descriptor with which threads wake the loop."""
CALL = re.compile(r"^(\d+\.\d+) (\w+)\((.*)$")
PROCESS_NAME = re.compile(r'"/proc/\d+/comm"')
"""The kernel has a process's name in memory, and no lock that a process can hold: reading it waits for nothing."""


@contextmanager
def traced(*arguments: str, cwd: Path) -> Iterator[RelayProcess]:
    """Run a relay whose main thread's calls go to the file `trace`."""
    tracer = ["strace", "-D", "-qq", "-ttt", "-y", "-s", "64", "-o", "trace"]
    with subprocess.Popen(
        [*tracer, *processes.command("serve", *arguments)],
        cwd=cwd,
        env=processes.environment({}),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(2 * processes.PATIENCE, process.kill)
        watchdog.start()
        try:
            RelayProcess(process, "").wait_for('"ready"')
            yield RelayProcess(process, "")
        finally:
            watchdog.cancel()
            process.kill()


def offences(trace: Path, since: float) -> list[str]:
    """Return the calls that may wait for something else than clients, up to where the relay removes its socket."""
    found: list[str] = []
    opened: set[str] = set()
    for line in trace.read_text().splitlines():
        match = CALL.match(line)
        if match is None or float(match[1]) < since:
            continue
        name, arguments = match[2], match[3]
        if name.startswith("unlink"):
            # Before it removes a path, the relay looks whether that is still the file that it keeps open.
            looks = len(found) >= 2 and "AT_SYMLINK_NOFOLLOW" in found[-2] and "AT_EMPTY_PATH" in found[-1]
            return found[:-2] if looks else found
        if name in HARMLESS or (name == "poll" and re.search(r", 0\)\s+= ", arguments)):
            continue
        if name == "pselect6" and "eventpoll" in arguments and "tv_sec=0, tv_nsec=50000" in arguments:
            continue  # the pump's: for all clients at once, 50 microseconds
        if name in ON_SOCKETS and re.match(r"\d+<(socket|UNIX|TCP|anon_inode)", arguments):
            continue
        if name == "openat" and PROCESS_NAME.search(arguments):
            opened.add(arguments.partition('"')[2].partition('"')[0])
            continue
        if any(f"<{path}>" in arguments for path in opened):
            continue
        found.append(line)
    raise AssertionError("the relay never removed its socket")


def ask(path: Path, request: str) -> bytes:
    answer = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(processes.PATIENCE)
        client.connect(str(path))
        client.sendall(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Triorelay: 1\r\n\r\n".encode())
        while part := client.recv(65536):
            answer += part
    return answer


@pytest.mark.needs("strace")
def test_after_it_is_ready_the_loop_makes_no_call_that_can_wait_for_a_file_or_a_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    write_tls_files(tmp_path, authority)
    (tmp_path / "token").write_text("a token of good length")
    (tmp_path / "relay.toml").write_text(
        """
        unix = ["s"]
        tcp = ["127.0.0.1:0"]
        tls = ["127.0.0.1:0"]
        tls_cert = "relay.pem"
        tls_key = "relay.key"
        admin = ["other.admin"]
        admin_token_file = "token"
        hold_frames = 10
        flight_recorder = 65536
        stall_timeout = 3
        log_format = "json"
        log_level = "debug"
        """
    )
    with traced("--config", "relay.toml", cwd=tmp_path) as relay, ExitStack() as stack:
        since = time.time()
        live(tmp_path, relay, stack, authority)
        relay.signal(signal.SIGTERM)
        code, _ = relay.end()
        assert code == 0
    assert not (found := offences(tmp_path / "trace", since)), "\n".join(found)


def send_until_closed(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        client.sendall(data)


def live(place: Path, relay: RelayProcess, stack: ExitStack, authority: trustme.CA) -> None:
    """Have everything happen to a relay that happens in a relay's life."""

    def connect(address: str | tuple[str, int], hello: bytes = b"", answer: bytes = b"") -> socket.socket:
        client = stack.enter_context(socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX))
        client.settimeout(processes.PATIENCE)
        client.connect(address)
        client.sendall(hello)
        assert receive(client, len(answer)) == answer
        return client

    path = str(place / "s")
    listeners = json.loads(ask(place / "s.admin", "GET /status").partition(b"\r\n\r\n")[2])["listeners"]
    tcp, tls = (("127.0.0.1", int(listener.rpartition(":")[2])) for listener in listeners[1:])
    a = connect(path, b"A\x83", b"A\0")
    b = connect(tcp, b"B\x81", b"B\0")
    a.sendall(b"B1" * 1000 + b"C1")
    assert receive(b, 2000) == b"A1" * 1000
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with context.wrap_socket(connect(tls), server_hostname="127.0.0.1") as secure:
        secure.sendall(b"T\x81T1")
        assert b"".join(iter(lambda: secure.recv(1), b"1")) == b"T\0T"
    for path_ in ("/healthz", "/readyz", "/metrics", "/metrics", "/", "/status", "/nothing"):
        ask(place / "s.admin", f"GET {path_}")
    events = connect(f"{path}.admin", b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200")
    monitor = connect(f"{path}.admin", b"GET /monitor HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200")
    # A hello that is none, an id that is taken, a client that is paused and one that is closed for not reading.
    connect(path, b"GET / HTTP/1.1\r\n\r\n")
    connect(path, b"A\x81", b"A\1")
    silent = connect(path, b"S\x81", b"S\0")
    flood = connect(path, b"F\x81", b"F\0")
    flooding = threading.Thread(target=send_until_closed, args=[flood, b"S." * 400_000])
    flooding.start()
    stack.callback(flooding.join)
    relay.wait_for('"client waits"')
    relay.wait_for('"slow_consumer"')
    silent.close()
    ask(place / "s.admin", "POST /clients/F/close")
    relay.signal(signal.SIGHUP)
    relay.wait_for('"reloaded"')
    with open(place / "relay.toml", "a") as file:
        file.write("\nnonsense = true\n")
    relay.signal(signal.SIGHUP)
    relay.wait_for("reload failed")
    relay.signal(signal.SIGUSR1)
    relay.wait_for("flight recorder written")
    os.unlink(path)
    relay.wait_for("listening there again")
    connect(path, b"Z\x81", b"Z\0")
    for stream in (events, monitor):
        assert stream.recv(1)
