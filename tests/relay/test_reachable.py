"""A relay whose socket path another program takes away, and what it says and does then."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.cli.activation import ready
from tests.cli.processes import RelayProcess, relay, run
from triorelay.relay import Config
from triorelay.relay._listeners import SocketListener, open_listeners

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(processes.PATIENCE)
    client.connect(str(path))
    return client


def claim(path: Path, id: bytes) -> socket.socket:
    client = connect(path)
    client.sendall(id + b"\x81")
    assert client.recv(2, socket.MSG_WAITALL) == id + b"\0"
    return client


def ask(path: Path, request: bytes) -> bytes:
    with connect(path) as client:
        client.sendall(request)
        return client.recv(65536)


@contextmanager
def running(tmp_path: Path) -> Iterator[RelayProcess]:
    with relay("--unix", "s", cwd=tmp_path) as process:
        yield process


def test_a_removed_path_is_listened_on_again_and_connected_clients_stay(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running(tmp_path) as process, claim(path, b"A") as a:
        path.unlink()
        assert "path=s " in process.wait_for("socket path lost, listening there again")
        with claim(path, b"B") as b:
            b.sendall(b"A1")
            assert a.recv(2, socket.MSG_WAITALL) == b"B1"
        assert ask(tmp_path / "s.admin", b"GET /readyz HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0
    assert not path.exists()


def test_another_file_in_its_place_is_left_alone_and_the_relay_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running(tmp_path) as process:
        path.unlink()
        path.write_text("precious")
        line = process.wait_for("socket path lost, no client can connect to it")
        assert "is a file, not a socket, and is left alone" in line
        answer = ask(tmp_path / "s.admin", b"GET /readyz HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"no client can connect to s: s is a file" in answer
        # It is alive all the same.
        assert run("health", "--admin", "s.admin", cwd=tmp_path).returncode == 0
        assert path.read_text() == "precious"
        path.unlink()
        process.wait_for("socket path lost, listening there again")
        with claim(path, b"A"):
            pass
        assert ask(tmp_path / "s.admin", b"GET /readyz HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_if_its_lock_is_gone_too_another_relay_may_have_the_path_and_is_named(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        for name in ("s", "s.lock"):
            (tmp_path / name).unlink()
        with relay("--unix", "s", "--admin", "none", "--handover", "none", cwd=tmp_path):
            assert "s is in use by another relay: stop that one" in process.wait_for("socket path lost, no client")
            with claim(tmp_path / "s", b"A"):
                pass


def test_the_admin_endpoint_s_own_path_comes_back_too(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        (tmp_path / "s.admin").unlink()
        assert "path=s.admin " in process.wait_for("socket path lost, listening there again")
        assert run("health", "--admin", "s.admin", cwd=tmp_path).returncode == 0


def test_the_path_where_a_successor_asks_comes_back_too(tmp_path: Path) -> None:
    with running(tmp_path) as process, claim(tmp_path / "s", b"A") as a:
        (tmp_path / "s.handover").unlink()
        assert "path=" in process.wait_for("s.handover")
        with relay("--unix", "s", "--take-over", cwd=tmp_path) as successor:
            assert process.end()[0] == 0
            a.sendall(b"A1")
            assert a.recv(2, socket.MSG_WAITALL) == b"A1"
            successor.signal(signal.SIGTERM)
            assert a.recv(2) == b""
            a.close()
            assert successor.end()[0] == 0


def test_the_lost_path_of_a_passed_socket_is_logged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with ready([listener], cwd=tmp_path) as process:
            path.unlink()
            line = process.wait_for("socket path lost, no client")
            assert "restart what opened it, such as its systemd unit" in line
    assert not path.exists()


@pytest.mark.parametrize("kind", ["seen", "removed", "replaced", "abstract"])
def test_a_passed_socket_without_a_path_that_is_seen_is_not_watched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind("\0triorelay-passed" if kind == "abstract" else str(path))
        passed.listen()
        if kind in ("removed", "replaced"):
            path.unlink()
        if kind == "replaced":
            path.write_text("precious")
        with open_listeners(Config(), [passed]) as (listener,):
            assert isinstance(listener, SocketListener)
            assert listener.sock is passed
            assert listener.file is not None
            assert listener.file.can_be_lost is (kind == "seen")
    assert path.exists() is (kind in ("seen", "replaced"))
