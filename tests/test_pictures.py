"""The pictures of the documentation: which there are, and that the one without a browser is made from what happens."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def test_every_picture_that_is_shown_is_one_that_is_made() -> None:
    shown = {name for page in PAGES for name in re.findall(r"images/([\w.-]+\.(?:png|svg))", page.read_text())}
    source = (ROOT / "docs" / "pictures" / "__main__.py").read_text()
    assert shown == {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert shown == set(re.findall(r'"([\w.-]+\.(?:png|svg))":', source))


def test_the_terminal_shows_what_the_demonstration_says_line_by_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "docs.pictures", "demo.svg", "--into", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600, capture_output=True)
    svg = (tmp_path / "demo.svg").read_text()
    said = "".join(ET.fromstring(svg).itertext()).replace("\N{NO-BREAK SPACE}", " ")
    assert "$ make demo" in said
    assert "it balances" in said
    assert len(re.findall(r"@keyframes line-\d+ ", svg)) > 30
    assert "http" not in re.sub(r'xmlns="[^"]*"|<!--.*?-->', "", svg)
