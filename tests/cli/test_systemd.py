"""A relay under systemd: sockets that are handed over, and what it tells whoever supervises it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from tests.cli import processes
from tests.cli.processes import RelayProcess, assert_one_line, environment
from tests.watchdog import watched
from triorelay.cli._systemd import Supervisor, take_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    _, complaints = process.communicate()
    return subprocess.CompletedProcess([], process.returncode, "", complaints)


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


class TestSockets:
    def test_both_kinds_are_served_and_nothing_else_is_listened_on(self, tmp_path: Path) -> None:
        with (
            unix_listener(tmp_path / "s") as unix,
            tcp_listener() as tcp,
            ready([unix, tcp], cwd=tmp_path) as running,
        ):
            assert f'listening="unix:{tmp_path}/s, tcp:127.0.0.1:{port_of(tcp)}"' in running.ready
            greet_unix(tmp_path / "s")
            greet_tcp(port_of(tcp))
            names = sorted(path.name for path in tmp_path.iterdir())
            running.signal(signal.SIGTERM)
            assert running.end()[0] == 0
        # No lock is taken beside a socket that is not ours; the admin endpoint's is.
        assert names == ["s", "s.admin", "s.admin.lock"]

    def test_the_path_survives_and_whoever_comes_between_two_relays_is_served_by_the_second(
        self, tmp_path: Path
    ) -> None:
        with unix_listener(tmp_path / "s") as listener:
            inode = (tmp_path / "s").stat().st_ino
            with ready([listener], cwd=tmp_path) as running:
                greet_unix(tmp_path / "s")
                running.signal(signal.SIGTERM)
                assert running.end()[0] == 0
            assert (tmp_path / "s").stat().st_ino == inode
            with socket.socket(socket.AF_UNIX) as early:
                early.connect(str(tmp_path / "s"))
                with ready([listener], cwd=tmp_path):
                    welcomed(early)

    def test_named_listeners_are_opened_beside_those_that_were_handed_over(self, tmp_path: Path) -> None:
        with unix_listener(tmp_path / "given") as listener, ready([listener], "--unix", "own", cwd=tmp_path) as running:
            assert f'listening="unix:own, unix:{tmp_path}/given"' in running.ready
            greet_unix(tmp_path / "given")
            greet_unix(tmp_path / "own")

    def test_what_was_handed_over_serves_for_the_listener_of_that_address(self, tmp_path: Path) -> None:
        with unix_listener(tmp_path / "s") as unix, tcp_listener() as tcp:
            place = f"localhost:{port_of(tcp)}"
            with ready([unix, tcp], "--unix", "s", "--tcp", place, cwd=tmp_path) as running:
                assert f'listening="unix:s, tcp:127.0.0.1:{port_of(tcp)}"' in running.ready
                greet_unix(tmp_path / "s")
                greet_tcp(port_of(tcp))
            assert not (tmp_path / "s.lock").exists()

    def test_a_port_that_is_named_for_tls_speaks_tls(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "relay.pem")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with socket.create_server(("0.0.0.0", 0)) as listener:
            options = ["--tls", str(port_of(listener)), "--tls-cert", "relay.pem", "--tls-key", "relay.pem"]
            with ready([listener], *options, cwd=tmp_path) as running:
                assert f"listening=tls:0.0.0.0:{port_of(listener)} " in running.ready
                plain = socket.create_connection(("127.0.0.1", port_of(listener)))
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                    welcomed(client)

    def test_it_tells_the_permissions_of_the_file_not_of_the_setting(self, tmp_path: Path) -> None:
        with unix_listener(tmp_path / "s") as listener:
            (tmp_path / "s").chmod(0o666)
            with ready([listener], cwd=tmp_path) as running:
                assert f"unix {tmp_path}/s is open to every user" in running.ready
            assert (tmp_path / "s").stat().st_mode & 0o777 == 0o666

    def test_a_name_of_the_abstract_namespace_is_served(self, tmp_path: Path) -> None:
        name = f"\0triorelay-{os.getpid()}"
        with unix_listener(name) as listener, ready([listener], cwd=tmp_path) as running:
            assert f"listening=unix:@{name[1:]} " in running.ready
            greet_unix(name)

    def test_sockets_for_another_process_are_left_alone(self, tmp_path: Path) -> None:
        with (
            unix_listener(tmp_path / "s") as listener,
            activated([listener], cwd=tmp_path, pid=str(os.getpid())) as process,
        ):
            running = RelayProcess(process, "")
            told = running.wait_for("sockets were handed over to another process")
            assert f"listen_pid={os.getpid()} " in told
            assert "listening=unix:server_socket " in running.wait_for("ready")

    def test_a_reload_keeps_them(self, tmp_path: Path) -> None:
        with tcp_listener() as listener, ready([listener], cwd=tmp_path) as running:
            running.signal(signal.SIGHUP)
            running.wait_for("reloaded")
            greet_tcp(port_of(listener))

    def test_a_datagram_socket_gets_one_line_and_exit_1(self, tmp_path: Path) -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            activated([datagrams], "--admin", "none", cwd=tmp_path) as process,
        ):
            assert_last_words(process, r"descriptor 3 was handed over and is no stream socket: use ListenStream=")

    def test_a_connection_gets_one_line_and_exit_1(self, tmp_path: Path) -> None:
        one, other = socket.socketpair()
        with one, other, activated([one], "--admin", "none", cwd=tmp_path) as process:
            assert_last_words(process, r"descriptor 3 was handed over and does not listen: use Accept=no")

    def test_a_descriptor_that_is_no_socket_gets_one_line_and_exit_1(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        with (
            os.fdopen(reading) as reader,
            os.fdopen(writing, "w"),
            tcp_listener() as listener,
            activated([listener, reader], cwd=tmp_path) as process,
        ):
            assert_one_line(ended(process), 1, r"descriptor 4 \(second\) of LISTEN_FDS is no socket")

    def test_no_program_that_the_relay_runs_inherits_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        descriptor = tcp_listener().detach()
        os.set_inheritable(descriptor, True)
        monkeypatch.setattr("triorelay.cli._systemd.FIRST_DESCRIPTOR", descriptor)
        (taken,) = take_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
        with taken:
            assert taken.fileno() == descriptor
            assert not taken.get_inheritable()

    def test_a_count_that_is_no_number_gets_one_line_and_exit_1(self, tmp_path: Path) -> None:
        with activated([], cwd=tmp_path, count="many") as process:
            assert_one_line(ended(process), 1, "LISTEN_FDS: expected the number of sockets, not 'many'")


def assert_last_words(process: subprocess.Popen[str], complaint: str) -> None:
    result = ended(process)
    assert result.returncode == 1
    assert re.search(complaint, result.stderr.splitlines()[-1]), result.stderr
    assert "Traceback" not in result.stderr


@contextmanager
def supervisor(address: Path | str) -> Iterator[socket.socket]:
    """A socket that words arrive at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as words:
        words.bind(str(address))
        words.settimeout(processes.PATIENCE)
        yield words


class TestSuccession:
    """A relay with sockets of systemd's, and what SIGUSR2 starts."""

    def test_what_it_listens_on_stays_what_it_was(self, tmp_path: Path) -> None:
        """Settings that only a given socket gives a meaning, an endpoint beside it, and the main process's number."""
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "TRIORELAY_HANDOVER": str(tmp_path / "handover")}
        with (
            supervisor(tmp_path / "notify") as words,
            unix_listener(tmp_path / "s") as unix,
            tcp_listener() as tcp,
            ready([unix, tcp], "--allow", "127.0.0.1", cwd=tmp_path, settings=settings) as running,
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.connect(str(tmp_path / "s"))
            welcomed(client, b"B")
            assert words.recv(100) == b"READY=1"
            running.signal(signal.SIGUSR2)
            _, ready_line = running.wait_for_all("handed over sessions=1", " ready ")
            main = re.fullmatch(rb"MAINPID=(\d+)", words.recv(100))
            assert main is not None
            successor = int(main[1])
            try:
                assert words.recv(100) == b"READY=1"
                assert f"tcp:127.0.0.1:{port_of(tcp)}" in ready_line
                client.sendall(b"B1")
                assert client.recv(2) == b"B1"
                greet_tcp(port_of(tcp))
                status = processes.run("status", "--admin", str(tmp_path / "s.admin"), "--json", cwd=tmp_path)
                assert json.loads(status.stdout)["handovers"] == 1
                assert not (tmp_path / "server_socket.admin").exists()
            finally:
                client.close()
                with pidfd_of(successor) as ended:
                    os.kill(successor, signal.SIGTERM)
                    ended()

    def test_a_relative_path_serves_where_the_absolute_one_is_too_long(self, tmp_path: Path) -> None:
        deep = tmp_path / (100 * "d")
        deep.mkdir()
        with ready([], "--unix", "s", "--admin", "none", cwd=deep) as running:
            running.signal(signal.SIGUSR2)
            running.wait_for_all("handed over sessions=0", " ready ")
            running.process.wait(processes.PATIENCE)
            (pid,) = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal() and works_in(entry, deep))
            with pidfd_of(pid) as ended:
                os.kill(pid, signal.SIGTERM)
                ended()

    def test_a_directory_that_it_may_not_write_to_is_no_reason_not_to_run(self, tmp_path: Path) -> None:
        """The supervisor made the socket there as root, and `.handover` beside it cannot be had."""
        (tmp_path / "s.handover.lock").symlink_to("elsewhere")
        with unix_listener(tmp_path / "s") as unix, activated([unix], "--unix", "s", cwd=tmp_path) as process:
            running = RelayProcess(process, "")
            assert "is a symbolic link" in running.wait_for("no successor can take over")
            running.wait_for("ready")
            greet_unix(tmp_path / "s")
            running.signal(signal.SIGUSR2)
            running.wait_for("no successor can take over")
            greet_unix(tmp_path / "s")
            running.signal(signal.SIGTERM)
            assert running.end()[0] == 0


def works_in(pid: str, directory: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(directory) and pid != str(os.getpid())
    except OSError:
        return False


@contextmanager
def pidfd_of(pid: int) -> Iterator[Callable[[], None]]:
    """Give a function that waits for the end of a process that is not a child of this one."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)

        def wait() -> None:
            assert poll.poll(processes.PATIENCE * 1000)

        yield wait
    finally:
        os.close(descriptor)


class TestWords:
    @pytest.mark.parametrize("kind", ["path", "abstract"])
    def test_it_says_when_it_is_ready_and_when_it_stops(self, tmp_path: Path, kind: str) -> None:
        address = str(tmp_path / "notify") if kind == "path" else f"\0triorelay-notify-{os.getpid()}"
        settings = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        with supervisor(address) as words, ready([], "--unix", "s", cwd=tmp_path, settings=settings) as running:
            assert words.recv(100) == b"READY=1"
            greet_unix(tmp_path / "s")
            running.signal(signal.SIGTERM)
            assert words.recv(100) == b"STOPPING=1"
            assert running.end()[0] == 0

    def test_it_gives_signs_of_life_through_the_drain_too(self, tmp_path: Path) -> None:
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"}
        arguments = ["--unix", "s", "--drain-timeout", "0"]
        with (
            supervisor(tmp_path / "notify") as words,
            ready([], *arguments, cwd=tmp_path, settings=settings) as running,
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.connect(str(tmp_path / "s"))
            welcomed(client)
            assert sorted({words.recv(100) for _ in range(5)}) == [b"READY=1", b"WATCHDOG=1"]
            running.signal(signal.SIGTERM)
            while words.recv(100) != b"STOPPING=1":
                pass
            # The client does not go, so the drain lasts.
            assert [words.recv(100) for _ in range(3)] == 3 * [b"WATCHDOG=1"]
            client.close()
            assert running.end()[0] == 0

    async def test_signs_of_life_come_twice_as_often_as_they_are_asked_for(
        self, tmp_path: Path, autojump_clock: trio.testing.MockClock
    ) -> None:
        with supervisor(tmp_path / "notify") as words:
            words.setblocking(False)
            with trio.move_on_after(18):
                await Supervisor(str(tmp_path / "notify"), 10).keep_informed()
            assert [words.recv(100) for _ in range(4)] == 4 * [b"WATCHDOG=1"]
            with pytest.raises(BlockingIOError):
                words.recv(100)

    def test_a_supervisor_that_is_not_there_harms_nothing(self, tmp_path: Path) -> None:
        settings = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "20000"}
        with ready([], "--unix", "s", cwd=tmp_path, settings=settings) as running:
            greet_unix(tmp_path / "s")
            running.signal(signal.SIGTERM)
            assert running.end()[0] == 0


class TestVariables:
    def test_they_are_gone_once_they_are_read(self) -> None:
        variables = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x", "PATH": "/bin"}
        variables |= {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
        assert take_sockets(variables) == []
        assert Supervisor.take(variables) == Supervisor("\0x", None)
        assert variables == {"PATH": "/bin"}

    @pytest.mark.parametrize(
        ("variables", "seconds"),
        [
            ({}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
            ({"WATCHDOG_USEC": "10000000"}, 10),
            ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
            ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ],
    )
    def test_the_watchdog_is_for_this_process_or_for_nobody(
        self, variables: dict[str, str], seconds: float | None
    ) -> None:
        assert Supervisor.take(variables).watchdog == seconds
