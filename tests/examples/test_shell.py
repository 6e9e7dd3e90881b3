"""The examples for a shell, with the programs that they name."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from os import environ
from typing import TYPE_CHECKING

import pytest

from tests.cli.clients import client, finish
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
    path = f"{triorelay_in_path}:{environ['PATH']}"
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
