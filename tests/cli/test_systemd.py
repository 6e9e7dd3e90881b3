"""A relay under systemd: sockets that are handed over, and messages to the supervisor."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

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
from tests.cli.processes import RelayProcess, assert_one_line
from triorelay.cli._systemd import Supervisor, take_sockets

if TYPE_CHECKING:
    from pathlib import Path


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    _, complaints = process.communicate()
    return subprocess.CompletedProcess([], process.returncode, "", complaints)


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
        # No lock is taken beside a socket that is not ours; those of the admin endpoint and of the handover are.
        assert names == ["s", "s.admin", "s.admin.lock", "s.handover", "s.handover.lock"]

    def test_the_path_survives_and_the_second_relay_serves_clients_that_come_between_the_two(
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
    def test_the_watchdog_is_for_this_process_or_for_none(
        self, variables: dict[str, str], seconds: float | None
    ) -> None:
        assert Supervisor.take(variables).watchdog == seconds
