"""Client commands that run for a while, for the tests of the command line."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

from tests.cli import processes
from tests.launcher import Program
from tests.watchdog import watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def client(
    *arguments: str,
    cwd: Path,
    settings: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the length of the block, with a pipe as its input unless a file is given."""
    with ExitStack() as stack:
        process = Program[bytes](
            *arguments,
            cwd=cwd,
            env=processes.environment(settings or {}),
            stdin=subprocess.PIPE if stdin is None else stack.enter_context(stdin.open("rb")),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        yield stack.enter_context(watched(process))


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """End the input and wait for the end; return the exit code and what was said."""
    if process.stdin is not None and process.stdin.closed:
        process.stdin = None
    output, complaint = process.communicate()
    return process.returncode, output, complaint or b""


def lines_until(process: subprocess.Popen[bytes], last: str) -> list[str]:
    """Return the lines of output up to `last`."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != last:
        line = process.stdout.readline().decode()
        assert line, f"ended after {lines}"
        lines.append(line)
    return lines
