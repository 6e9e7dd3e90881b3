"""Commands as real processes, for the tests of the command line."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from tests.launcher import Program
from tests.watchdog import PATIENCE as PATIENCE
from tests.watchdog import watched
from triorelay.cli import main

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that finds this package, and no setting but these."""
    # The size of a terminal that runs the tests is not that of the one that a test makes.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TRIORELAY_") and name not in ("COLUMNS", "LINES")
    }
    return {**inherited, "PYTHONPATH": str(Path(__file__).parents[2]), **settings}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "triorelay", *arguments]


def run(
    *arguments: str,
    cwd: Path,
    settings: Mapping[str, str] | None = None,
    loaded: bool = True,
    stdout: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; with `loaded` false it loads its modules itself."""
    env, stderr = environment(settings or {}), subprocess.PIPE
    program = Program[str](*arguments, cwd=cwd, env=env, loaded=loaded, stdout=stdout, stderr=stderr, text=True)
    with watched(program) as process:
        output, complaint = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, output, complaint)


def run_here(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in the test's own process: for the many cases of what a process shows once."""
    output, complaint = io.StringIO(), io.StringIO()
    with (
        chdir(cwd),
        mock.patch.dict(os.environ, environment({}), clear=True),
        redirect_stdout(output),
        redirect_stderr(complaint),
    ):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), complaint.getvalue())


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, complaint: str) -> None:
    """A command failed with one line that a person can read."""
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines), result.stdout) == (code, 1, ""), result
    assert re.search(complaint, lines[0]), lines[0]
    assert lines[0].isascii()
    assert "Traceback" not in lines[0]


@dataclass(frozen=True, slots=True)
class RelayProcess:
    """A `triorelay serve` that is ready.

    Attributes:
        process: the process.
        ready: its ready line.
    """

    process: subprocess.Popen[str]
    ready: str

    def wait_for(self, text: str) -> str:
        """Return the next line of the log that holds `text`."""
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"the log ended without {text!r}: {lines}")

    def wait_for_all(self, *texts: str) -> list[str]:
        """Return the next line that holds each of `texts`, whichever order they come in: two processes may write."""
        found: dict[str, str] = {}
        while len(found) < len(texts):
            line = self.wait_for("")
            found |= {text: line for text in texts if text in line and text not in found}
        return [found[text] for text in texts]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, list[str]]:
        """Wait for the end; return the exit code and the unread lines of the log."""
        _, rest = self.process.communicate()
        return self.process.returncode, rest.splitlines()


@contextmanager
def starting(*arguments: str, cwd: Path, settings: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `triorelay serve` for the length of the block."""
    program = Program[str](
        "serve", *arguments, cwd=cwd, env=environment(settings or {}), stderr=subprocess.PIPE, text=True
    )
    with watched(program) as process:
        yield process


@contextmanager
def relay(*arguments: str, cwd: Path, settings: Mapping[str, str] | None = None) -> Iterator[RelayProcess]:
    """Run `triorelay serve` for the length of the block, from its ready line on."""
    with starting(*arguments, cwd=cwd, settings=settings) as process:
        yield RelayProcess(process, RelayProcess(process, "").wait_for("ready"))
