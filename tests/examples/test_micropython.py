"""The example for MicroPython, on its port for Linux."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import triorelay
from tests.cli import processes
from tests.components import require
from tests.examples.scene import EXAMPLES, next_line, running, tcp_port
from tests.vectors import FILE

if TYPE_CHECKING:
    from tests.cli.processes import RelayProcess

DIRECTORY = EXAMPLES / "micropython"
VECTORS = Path(__file__).parent / "micropython_vectors.py"


def check_vectors(interpreter: str) -> str:
    words: list[str | Path] = [interpreter, VECTORS, DIRECTORY, FILE]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.needs("micropython")
def test_the_module_writes_and_reads_what_the_vectors_say() -> None:
    assert check_vectors(require("micropython")).endswith("on micropython\n")


def test_the_module_does_so_on_cpython() -> None:
    assert check_vectors(sys.executable).endswith("on cpython\n")


@pytest.mark.needs("micropython")
async def test_a_board_answers_and_reconnects(relay: RelayProcess, tmp_path: Path) -> None:
    board: list[str | Path] = [require("micropython"), DIRECTORY / "main.py", "127.0.0.1", tcp_port(relay), "M"]
    address = f"unix:{tmp_path}/server_socket"
    with running(board, cwd=tmp_path) as process, trio.fail_after(processes.PATIENCE):
        assert await trio.to_thread.run_sync(next_line, process) == "connected as M"
        for _ in range(2):
            async with triorelay.open_client(address, id="A") as client, client.messages() as messages:
                await client.wait_for("M")
                for _ in range(3):
                    await messages.send("M", b"read")
                    assert await messages.receive() == ("M", b"21.5")
            assert await trio.to_thread.run_sync(close_board, tmp_path) == 0
            assert (await trio.to_thread.run_sync(next_line, process)).startswith("no relay: ")
            assert await trio.to_thread.run_sync(next_line, process) == "connected as M"


def close_board(directory: Path) -> int:
    """End the board's connection, as a relay that restarts does."""
    return processes.run("close", "M", cwd=directory).returncode
