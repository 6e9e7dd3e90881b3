"""The complete client in C talks with the library and with itself."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio

import triorelay
from tests.examples.scene import EXAMPLES, assert_they_talk, end, line_like, running, say, tcp_port
from tests.examples.test_c_header import SANITIZED, compile_with_header

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import RelayProcess

pytestmark = pytest.mark.needs("gcc")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("client") / "client"
    strict = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    compile_with_header([*strict, *SANITIZED], EXAMPLES / "c" / "client.c", program)
    return program


def test_two_of_them_talk_over_unix_and_tcp(relay: RelayProcess, client: Path, tmp_path: Path) -> None:
    with (
        running([client, "server_socket", "A", "B"], cwd=tmp_path) as a,
        running([client, "127.0.0.1", tcp_port(relay), "B", "A"], cwd=tmp_path) as b,
    ):
        assert_they_talk(a, b)


async def test_it_exchanges_messages_with_the_library(relay: RelayProcess, client: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/server_socket"
    long = "x" * 1000
    async with (
        triorelay.open_client(address, id="B") as library,
        library.messages() as messages,
    ):
        with running([client, "server_socket", "A", "B"], cwd=tmp_path) as process:
            with trio.fail_after(30):
                await library.wait_for("A")
                for text in ("one", long):
                    await trio.to_thread.run_sync(say, process, text)
                    assert await messages.receive() == ("A", text.encode())
                for text in ("two", long * 60):
                    await messages.send("A", text.encode())
                    assert await trio.to_thread.run_sync(line_like, process, "B: .*") == f"B: {text}"
            assert end(process)[::2] == (0, "")


def test_it_reports_what_was_not_delivered(relay: RelayProcess, client: Path, tmp_path: Path) -> None:
    with running([client, "server_socket", "A", "B"], cwd=tmp_path) as a:
        say(a, "hello")
        assert line_like(a, "NO_.*") == "NO_ROUTE B"
        with running([client, "server_socket", "A", "B"], cwd=tmp_path) as second:
            assert end(second) == (1, "", "client: the id is taken\n")
        relay.signal(signal.SIGTERM)
        assert a.wait() == 1
        assert a.stderr is not None
        assert a.stderr.read() == "client: the relay has closed the connection\n"
