"""tshark with the project's dissector, for tests that look at captures with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.components import require

DISSECTOR = Path(__file__).parents[1] / "docs" / "how-to" / "wireshark" / "triorelay.lua"
PATIENCE = 60


def dissect(capture: Path, *words: str) -> list[str]:
    """What tshark prints of a capture, by lines; without words what the dissector says of each packet."""
    words = words or ("-T", "fields", "-e", "_ws.col.Info")
    command = [require("tshark"), "-n", "-X", f"lua_script:{DISSECTOR}", "-r", str(capture), *words]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert "Lua" not in result.stderr, result.stderr
    assert "Lua Error" not in result.stdout, result.stdout
    lines: list[str] = result.stdout.splitlines()
    return lines


def fields(capture: Path, *names: str) -> list[list[str]]:
    """The values of some fields in each packet."""
    wanted = [word for name in names for word in ("-e", name)]
    return [line.split("\t") for line in dissect(capture, "-T", "fields", *wanted)]
