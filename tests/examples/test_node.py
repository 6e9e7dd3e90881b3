"""The examples for Node.js: the protocol by the vectors, and a client that talks."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import triorelay
from tests.components import require
from tests.examples.scene import EXAMPLES, assert_they_talk, end, line_like, running, say, tcp_port

if TYPE_CHECKING:
    from tests.cli.processes import RelayProcess

pytestmark = pytest.mark.needs("node")


def node(*arguments: str) -> list[str | Path]:
    return [require("node"), EXAMPLES / "node" / "client.mjs", *arguments]


def test_the_module_writes_and_reads_what_the_vectors_say() -> None:
    tests = Path(__file__).parent / "vectors.test.mjs"
    result = subprocess.run([require("node"), "--test", tests], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\n# pass 10\n" in result.stdout


def test_two_clients_talk_over_unix_and_tcp(relay: RelayProcess, tmp_path: Path) -> None:
    with (
        running(node("server_socket", "A", "B"), cwd=tmp_path) as a,
        running(node("127.0.0.1", tcp_port(relay), "B", "A"), cwd=tmp_path) as b,
    ):
        assert_they_talk(a, b)


async def test_a_client_exchanges_messages_with_the_library(relay: RelayProcess, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/server_socket"
    long = "x" * 60_000
    async with triorelay.open_client(address, id="B") as library, library.messages() as messages:
        with running(node("server_socket", "A", "B"), cwd=tmp_path) as process:
            with trio.fail_after(30):
                await library.wait_for("A")
                for text in ("one", long):
                    await trio.to_thread.run_sync(say, process, text)
                    assert await messages.receive() == ("A", text.encode())
                for text in ("two", long):
                    await messages.send("A", text.encode())
                    assert await trio.to_thread.run_sync(line_like, process, "B: .*") == f"B: {text}"
            assert end(process)[::2] == (0, "")


def test_a_client_reports_what_was_not_delivered(relay: RelayProcess, tmp_path: Path) -> None:
    with running(node("server_socket", "A", "B"), cwd=tmp_path) as a:
        say(a, "hello")
        assert line_like(a, "NO_.*") == "NO_ROUTE B"
        with running(node("server_socket", "A", "B"), cwd=tmp_path) as second:
            assert end(second) == (1, "", "client: the relay refused: the id is taken\n")
        relay.signal(signal.SIGTERM)
        assert a.wait() == 1
        assert a.stderr is not None
        assert a.stderr.read() == "client: the relay has closed the connection\n"
