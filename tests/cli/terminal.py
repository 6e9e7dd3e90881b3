"""Commands in a terminal of their own, for the tests of what only a terminal shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from tests.cli.processes import PATIENCE, command, environment
from tests.watchdog import watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class Terminal:
    """A pseudoterminal with a process in it.

    Attributes:
        process: the process.
        settings: those of the terminal before it ran.
        styled: what `until` returned last, with its styles.
    """

    def __init__(self, master: int, slave: int, process: subprocess.Popen[bytes], settings: list[object]) -> None:
        self.process = process
        self.settings = settings
        self.styled = ""
        self._master = master
        self._slave = slave
        self._shown = ""

    def until(self, wanted: str) -> str:
        """Read until the pattern was shown, and return everything since the last call, without styles."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(wanted, self._text()):
            assert select.select([self._master], [], [], deadline - time.monotonic())[0], self._text()
            self._shown += os.read(self._master, 65536).decode()
        text = self._text()
        self.styled, self._shown = self._shown, ""
        return text

    def _text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self._shown)

    def waits(self, seconds: float) -> bool:
        """Return whether something is shown that was not read, or will be within `seconds`."""
        return bool(select.select([self._master], [], [], seconds)[0])

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def settings_now(self) -> list[object]:
        return termios.tcgetattr(self._slave)


def in_terminal(*arguments: str, cwd: Path, columns: int = 120) -> AbstractContextManager[Terminal]:
    """Run a command of ours in a terminal of 40 lines for the length of the block."""
    return program_in_terminal(command(*arguments), cwd=cwd, columns=columns)


@contextmanager
def program_in_terminal(
    words: Sequence[str], *, cwd: Path, settings: Mapping[str, str] | None = None, columns: int = 120
) -> Iterator[Terminal]:
    """Run a program in a terminal of 40 lines for the length of the block."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=environment({"TERM": "xterm-256color", **(settings or {})}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=take_terminal,
    )
    try:
        with watched(process):
            yield Terminal(master, slave, process, before)
    finally:
        os.close(master)
        os.close(slave)
