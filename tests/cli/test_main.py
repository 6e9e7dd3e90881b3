"""The `triorelay` command itself, as a process."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from tests.cli import processes
from tests.cli.processes import assert_one_line, run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_version_is_told(tmp_path: Path) -> None:
    result = run("--version", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"triorelay \d+\.\d+\.\d+\S*\n", result.stdout)


def test_no_command_shows_the_help_and_exits_2(tmp_path: Path) -> None:
    result = run(cwd=tmp_path)
    assert result.returncode == 2
    assert "Usage: triorelay" in result.stderr


def test_an_unknown_command_gets_one_line_and_exit_2(tmp_path: Path) -> None:
    assert_one_line(run("srve", cwd=tmp_path), 2, r"No such command 'srve'.*see triorelay --help")


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            processes.command("serve", "--help"),
            cwd=tmp_path,
            env=processes.environment({}),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=processes.PATIENCE,
        )
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")
