"""The demonstration that `make demo` runs, as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.watchdog import watched

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory with a short path: a Unix socket's has 107 bytes, and the demonstration makes one in it."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@contextmanager
def demo(place: Path, *arguments: str, path: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run the demonstration for the length of the block, its directory being made in `place`."""
    settings = {"PYTHONPATH": str(ROOT), "TMPDIR": str(place), "PATH": os.environ["PATH"] if path is None else path}
    with watched(
        subprocess.Popen(
            [sys.executable, str(ROOT / "docs" / "examples" / "demo.py"), *arguments],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        yield process


def run_to_its_end(place: Path, path: str | None = None) -> str:
    with demo(place, "--quick", path=path) as process:
        told, complaints = process.communicate()
    assert (process.returncode, complaints) == (0, "")
    assert list(place.iterdir()) == []
    return told


def assert_told(told: str) -> None:
    for line in (
        "A reads  B2",
        "B reads  A1",
        "gets '!' from U",
        "a gets the event LEFT x",
        "a gets the event NO_ROUTE x",
    ):
        assert line in told
    assert re.search(r"^  [a-l] to [a-l]: \S", told, re.MULTILINE)
    frames = re.search(r"([\d,]+) frames arrived", told)
    assert frames is not None
    assert int(frames[1].replace(",", "")) > 1000
    assert re.search(r"accepted=\d+ .* dropped\.no_route=14 ", told)
    assert told.rstrip().endswith("it balances")


@pytest.mark.needs("gcc")
def test_the_demonstration_shows_what_happens_and_ends_with_a_balanced_ledger(place: Path) -> None:
    told = run_to_its_end(place)
    assert "two clients, in C:" in told
    assert_told(told)


def test_without_a_compiler_the_article_s_clients_are_in_python(place: Path) -> None:
    told = run_to_its_end(place, path="")
    assert "in Python because there is no C compiler here" in told
    assert_told(told)


def test_ctrl_c_ends_the_relay_and_leaves_nothing_behind(place: Path) -> None:
    with demo(place) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "over TCP, and chat" in line:
                break
        process.send_signal(signal.SIGINT)
        told, complaints = process.communicate()
    assert (process.returncode, complaints) == (130, "")
    assert told.rstrip().endswith("The relay has ended, and its directory is gone.")
    assert list(place.iterdir()) == []
