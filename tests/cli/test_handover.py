"""A relay that starts its successor, under a supervisor that gave it sockets."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.cli.activation import (
    activated,
    greet_tcp,
    greet_unix,
    port_of,
    ready,
    supervisor,
    tcp_listener,
    unix_listener,
    welcomed,
)
from tests.cli.processes import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


def next_word(words: socket.socket, prefix: bytes) -> bytes:
    """Return what follows `prefix` in the next word that begins with it."""
    while not (word := words.recv(100)).startswith(prefix):
        pass
    return word.removeprefix(prefix)


def watched_at(address: Path) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "20000"}


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


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

    def test_a_successor_under_a_supervisor_is_no_child_of_the_old_relay_and_ends_with_it(self, tmp_path: Path) -> None:
        """systemd kills a main process that is no child of its own, instead of waiting for it."""
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        file = tmp_path / "relay.toml"
        file.write_text("")
        with (
            supervisor(tmp_path / "notify") as words,
            ready([], "--unix", "s", "--config", str(file), cwd=tmp_path, settings=settings) as running,
        ):
            assert words.recv(100) == b"READY=1"
            # The successor waits for this file.
            file.unlink()
            os.mkfifo(file)
            running.signal(signal.SIGUSR2)
            running.wait_for("starting a successor")
            with open(file, "wb"):
                (pid,) = (
                    int(entry)
                    for entry in os.listdir("/proc")
                    if entry.isdecimal() and works_in(entry, tmp_path) and int(entry) != running.process.pid
                )
                status = Path(f"/proc/{pid}/status").read_text()
                assert f"PPid:\t{running.process.pid}\n" not in status
                with pidfd_of(pid) as ended:
                    running.signal(signal.SIGTERM)
                    assert running.end()[0] == 0
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

    def test_its_place_may_be_written_as_an_address(self, tmp_path: Path) -> None:
        name = f"unix:@triorelay-handover-{os.getpid()}"
        arguments = "--unix", "s", "--handover", name
        with ready([], *arguments, cwd=tmp_path) as running:
            assert not [entry for entry in os.listdir(tmp_path) if "@" in entry]
            with ready([], *arguments, "--take-over", cwd=tmp_path):
                assert running.end()[0] == 0

    @pytest.mark.parametrize("abstract", [False, True])
    def test_it_gets_the_sockets_the_clients_and_the_supervisor(self, tmp_path: Path, abstract: bool) -> None:
        path = f"\0triorelay-usr2-{os.getpid()}" if abstract else str(tmp_path / "s")
        # `--allow` has a meaning only because a TCP socket was handed over.
        with (
            unix_listener(path) as unix,
            tcp_listener() as tcp,
            supervisor(tmp_path / "notify") as words,
            ready([unix, tcp], "--allow", "any", cwd=tmp_path, settings=watched_at(tmp_path / "notify")) as running,
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.connect(path)
            welcomed(client)
            pids = [running.process.pid]
            try:
                for byte in (b"1", b"2"):
                    os.kill(pids[-1], signal.SIGUSR2)
                    pids.append(int(next_word(words, b"MAINPID=")))
                    next_word(words, b"READY=1")
                    client.sendall(b"A" + byte)
                    assert client.recv(2) == b"A" + byte
                assert len(set(pids)) == 3
                assert [next_word(words, b"WATCHDOG=1") for _ in range(3)] == 3 * [b""]
                with socket.socket(socket.AF_UNIX) as other:
                    other.connect(path)
                    welcomed(other, b"B")
                with socket.create_connection(("127.0.0.1", port_of(tcp))) as other:
                    welcomed(other, b"C")
            finally:
                os.kill(pids[-1], signal.SIGTERM)
            client.close()
            _, log = running.end()
            assert log.count("handed over sessions=1 frames=0") == 2
            assert log[-1].startswith("ledger ")
        assert abstract or (tmp_path / "s").exists()

    @pytest.mark.parametrize("supervised", [False, True])
    def test_a_mistake_leaves_the_old_relay_serving_and_names_the_setting(
        self, tmp_path: Path, supervised: bool
    ) -> None:
        """Which setting has no effect depends on the sockets, which the successor gets last."""
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify")} if supervised else {}
        with (
            supervisor(tmp_path / "notify"),
            unix_listener(tmp_path / "s") as unix,
            ready([unix], "--config", write(tmp_path / "relay.toml", ""), cwd=tmp_path, settings=settings) as running,
        ):
            write(tmp_path / "relay.toml", 'allow = "any"\n')
            running.signal(signal.SIGUSR2)
            assert "allow: has no meaning without a TCP or TLS listener" in running.wait_for("handover failed")
            running.wait_for("the successor ended, this relay continues")
            greet_unix(tmp_path / "s")
