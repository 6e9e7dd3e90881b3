"""Examples as processes in one directory, around one relay."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli import processes
from tests.watchdog import watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.cli.processes import RelayProcess

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@contextmanager
def running(command: Sequence[str | Path], *, cwd: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command for the length of the block, its input a pipe."""
    with watched(
        subprocess.Popen(
            command,
            cwd=cwd,
            env=processes.environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        yield process


def python(example: str, *arguments: str) -> list[str | Path]:
    return [sys.executable, EXAMPLES / example, *arguments]


def shell(example: str, *arguments: str | Path) -> list[str | Path]:
    return ["sh", EXAMPLES / example, *arguments]


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"ended: {process.stderr.read() if process.stderr else ''}"
    return line.rstrip("\n")


def line_like(process: subprocess.Popen[str], pattern: str) -> str:
    """Return the next line of output that the pattern matches."""
    while not re.fullmatch(pattern, line := next_line(process)):
        pass
    return line


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """End the input, wait; return the exit code and what was said."""
    output, complaint = process.communicate()
    return process.returncode, output, complaint


def tcp_port(relay: RelayProcess) -> str:
    found = re.search(r"tcp:127\.0\.0\.1:(\d+)", relay.ready)
    assert found is not None
    return found[1]


def assert_they_talk(a: subprocess.Popen[str], b: subprocess.Popen[str]) -> None:
    """Have clients A and B, which talk with each other and show what they hear, do so and leave."""
    assert line_like(a, "JOINED B") == "JOINED B"
    say(a, "hello")
    assert line_like(b, "A: .*") == "A: hello"
    say(b, "")
    assert line_like(a, "B: .*") == "B: "
    assert end(b)[::2] == (0, "")
    assert next_line(a) == "LEFT B"
    assert end(a)[::2] == (0, "")
