"""The article's client leaves its socket file: the relay removes it where it served the client, and else says so."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import PATIENCE
from tests.wire.relay_process import RelayProcess
from tests.wire.test_client_files import until_gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(program: Path, directory: Path) -> tuple[int, str]:
    """Run the client, which sends itself a digit, in `directory`; return its exit code and what it printed."""
    done = subprocess.run([program, "A", "A", "1"], cwd=directory, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout


@pytest.mark.needs("gcc")
def test_it_runs_a_second_time_unchanged(compile_c: Callable[[str], Path], tmp_path: Path) -> None:
    program = compile_c("article_client")
    with RelayProcess(tmp_path):
        for _ in range(3):
            assert run(program, tmp_path) == (0, "A1\n")
            until_gone(tmp_path / "A")


@pytest.mark.needs("gcc")
def test_with_a_left_over_file_it_gets_no_id_and_the_log_names_the_process_and_the_file(
    compile_c: Callable[[str], Path], tmp_path: Path
) -> None:
    program = compile_c("article_client")
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.bind(str(tmp_path / "A"))  # no relay served this one
    with RelayProcess(tmp_path) as relay:
        assert run(program, tmp_path) == (1, "")
        line = relay.wait_for_line("client refused")
    assert "process=article_client" in line
    assert "remove the socket file of its earlier run" in line
