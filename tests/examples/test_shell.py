"""The examples for a shell, with the programs that they name."""

from __future__ import annotations

import http.server
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cli.clients import client, finish
from tests.cli.processes import run
from tests.components import require
from tests.examples.scene import end, running, shell, tcp_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.processes import RelayProcess

NETCATS = [
    ("busybox", "busybox nc 127.0.0.1 {}"),
    ("nc", "{program} -N 127.0.0.1 {}"),
    ("socat", "socat - TCP:127.0.0.1:{}"),
]


@pytest.mark.parametrize(("component", "command"), NETCATS, ids=[component for component, _ in NETCATS])
def test_a_client_in_one_line(relay: RelayProcess, tmp_path: Path, component: str, command: str) -> None:
    words = command.format(tcp_port(relay), program=require(component)).split()
    with client("receive", "--id", "B", "-n", "1", cwd=tmp_path) as receiver:
        relay.wait_for("client joined id=B")
        with running(shell("shell_client.sh", *words), cwd=tmp_path) as sender:
            assert finish(receiver) == (0, b"A 1\n", b"")
            assert end(sender) == (0, "", "")


class OnePage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"this is {self.path}\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def web_server() -> Iterator[int]:
    """Serve HTTP for the length of the block; yields its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OnePage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.needs("nc")
def test_http_through_a_pipe(relay: RelayProcess, tmp_path: Path, triorelay_in_path: Path) -> None:
    path = f"{triorelay_in_path}:{os.environ['PATH']}"
    place = f"tcp:127.0.0.1:{tcp_port(relay)}"
    with (
        web_server() as port,
        running(shell("http_through_pipe.sh", "serve", str(port)), cwd=tmp_path, PATH=path) as server,
        running(shell("http_through_pipe.sh", "get", "/news"), cwd=tmp_path, PATH=path, TRIORELAY_RELAY=place) as get,
    ):
        code, answer, complaint = end(get)
        assert (code, complaint) == (0, "")
        assert answer.startswith("HTTP/1.0 200 OK")
        assert answer.endswith("\n\nthis is /news\n")
        assert end(server) == (0, "", "")


@pytest.mark.needs("socat")
def test_a_device_at_a_serial_port(relay: RelayProcess, tmp_path: Path) -> None:
    with serial_port() as (device, port), client("receive", "--id", "B", "-n", "3", cwd=tmp_path) as receiver:
        relay.wait_for("client joined id=B")
        with running(shell("serial.sh", port), cwd=tmp_path):
            relay.wait_for("client joined id=D")
            os.write(device, b"B1BhBi")
            assert finish(receiver) == (0, b"D 1\nD h\nD i\n", b"")
            # What a terminal would change or act on arrives as it is.
            assert run("send", "--id", "A", "D", "\r\x03\x7f", cwd=tmp_path).returncode == 0
            assert read_exactly(device, 6) == b"A\rA\x03A\x7f"


@contextmanager
def serial_port() -> Iterator[tuple[int, str]]:
    """Yield what a device holds, and the path of the port that it is connected to."""
    device, port = os.openpty()
    try:
        yield device, os.ttyname(port)
    finally:
        os.close(device)
        os.close(port)


def read_exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data
