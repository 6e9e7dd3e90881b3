"""The `triorelay` command itself, as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.cli.processes import assert_one_line, relay, run
from triorelay._build import BUILD

if TYPE_CHECKING:
    from pathlib import Path


def test_the_version_is_printed(tmp_path: Path) -> None:
    result = run("--version", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(rf"triorelay \d+\.\d+\.\d+\S* \({BUILD}\)\n", result.stdout)


def test_no_command_shows_the_help_and_exits_2(tmp_path: Path) -> None:
    result = run(cwd=tmp_path)
    assert result.returncode == 2
    assert "Usage: triorelay" in result.stderr


def test_an_unknown_command_gets_one_line_and_exit_2(tmp_path: Path) -> None:
    assert_one_line(run("frobnicate", cwd=tmp_path), 2, r"No such command 'frobnicate'.*see triorelay --help")


@pytest.mark.parametrize(("typed", "meant"), [("sned", "send"), ("srve", "serve"), ("moniter", "monitor")])
def test_a_mistyped_command_gets_the_nearest_suggested(tmp_path: Path, typed: str, meant: str) -> None:
    complaint = f"no command is called '{typed}'; did you mean {meant}\\? \\(see triorelay --help\\)"
    assert_one_line(run(typed, "B", "x", cwd=tmp_path), 2, complaint)


@pytest.mark.parametrize(
    "words", [("ping", "--interval", "nan"), ("send", "--wait", "nan", "A", "x"), ("bench", "--seconds", "nan")]
)
def test_a_time_that_is_no_number_gets_one_line_and_exit_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert_one_line(run(*words, cwd=tmp_path), 2, "not a number of seconds")


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_that_cannot_be_gets_one_line(tmp_path: Path, host: str) -> None:
    assert_one_line(run("who", "--relay", f"{host}:9734", cwd=tmp_path), 2, "no host can be called")
    assert_one_line(run("serve", "--tcp", f"{host}:9734", cwd=tmp_path), 2, "no host can be called")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_standard_stream_that_is_closed_is_the_null_device(tmp_path: Path, closed: int) -> None:
    with relay(cwd=tmp_path):
        script = f'exec "$@" {closed}>&-'
        words = ["sh", "-c", script, "sh", *processes.command("ping", "-n", "2", "--interval", "0")]
        result = subprocess.run(
            words,
            cwd=tmp_path,
            env=processes.environment({}),
            capture_output=True,
            text=True,
            timeout=processes.PATIENCE,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert len(result.stdout.splitlines()) == (0 if closed == 1 else 3)


def test_ctrl_c_while_the_command_is_loaded_leaves_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from triorelay.cli import main\n"
        "main(['--version'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=processes.environment({}), stderr=-1, text=True
    )
    assert (result.returncode, result.stderr) == (130, "triorelay: interrupted\n")


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = run("serve", "--help", cwd=tmp_path, loaded=False, stdout=writing)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")
