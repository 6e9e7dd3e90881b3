"""Relays that take over from one another, as processes in one directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.wire.client import PATIENCE
from tests.wire.relay_process import SOURCE_TREE, RelayProcess

if TYPE_CHECKING:
    from pathlib import Path


class Successor(RelayProcess):
    """A relay that takes over from another one, and has its clients from then on."""

    def __init__(self, old: RelayProcess, *options: str, config: str = "") -> None:
        super().__init__(old.directory, "--take-over", *options, config=config)
        assert "took over" in "".join(self.lines), "".join(self.lines)
        self._clients, old._clients = old._clients, []

    def expect_handed_over(self, old: RelayProcess) -> tuple[int, int]:
        """Wait until `old` is gone as it should be; return how many sessions and frames it says it handed over."""
        return expect_handed_over(old)


def expect_handed_over(old: RelayProcess) -> tuple[int, int]:
    """Wait until `old` is gone; return how many sessions and queued frames it says that it handed over."""
    old.lines += old._log
    assert old.process.wait(PATIENCE) == 0, "".join(old.lines)
    assert "Traceback" not in "".join(old.lines), "".join(old.lines)
    found = re.fullmatch(r"handed over sessions=(\d+) frames=(\d+)\n", old.lines[-1])
    assert found is not None, old.lines[-1]
    old._signaled = True
    return int(found[1]), int(found[2])


def take_over(old: RelayProcess, *options: str, config: str = "") -> Successor:
    """Start a relay that takes over from `old`, and wait until `old` is gone."""
    new = Successor(old, *options, config=config)
    expect_handed_over(old)
    return new


def failing_take_over(directory: Path, *options: str, **more: object) -> str:
    """Run a successor that must fail with one line, which is returned."""
    command = [sys.executable, "-m", "triorelay", "serve", "--unix", f"{directory}/server_socket", "--admin", "none"]
    result = subprocess.run(
        [*command, "--take-over", *options],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(SOURCE_TREE)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    lines = [line for line in result.stderr.splitlines() if not line.startswith("ledger ")]
    assert result.returncode == 1, result.stderr
    assert len(lines) == 1, result.stderr
    return str(lines[0])
